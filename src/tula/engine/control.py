"""The one door through which API and command line look at the daemon, and change it.

Whoever stands behind it answers from what it has at hand where it can, and never blocks the
event loop: what asks the kernel or the disk goes to a thread.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tula.engine.figures import CycleOutcome, Snapshot
from tula.model.config import Backend, Config
from tula.model.event import Event
from tula.model.flow import Flow
from tula.model.health import BackendName
from tula.model.problem import PlacedProblem
from tula.plan.trace import Trace
from tula.version import __version__

SOCKET = "tula.sock"
"""Its name in the run directory."""


class ControlError(Exception):
    """What the daemon does not do, in words for the user."""


class NoSuchBackendError(ControlError):
    """The document that runs has no such backend; ``near`` are names that may be meant."""

    def __init__(self, backend: BackendName, near: tuple[str, ...] = ()) -> None:
        name = "/".join(backend)
        mend = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"no backend {name} in the document that runs{mend}")
        self.backend = backend
        self.near = near


class RefusedError(ControlError):
    """The daemon does not do that, and asking again does not help; a line for each reason."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class BusyError(ControlError):
    """Not now: the daemon starts, ends, or another change is under way."""


@dataclass(frozen=True, slots=True)
class ApplyOutcome:
    """What came of a document. With problems nothing has changed, and the last good one runs."""

    changed: bool = False
    steps: tuple[Mapping[str, Any], ...] = ()
    """as ``tula.engine.steps.describe_steps`` gives them"""
    problems: tuple[PlacedProblem, ...] = ()
    warnings: tuple[PlacedProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The file's text is refused since then, for these reasons; an older document runs."""

    since: float
    problems: tuple[PlacedProblem, ...]


@dataclass(frozen=True, slots=True)
class Cycle:
    """The last cycle of the reconciler; ``error`` is one line when it failed."""

    time: float
    seconds: float
    outcome: CycleOutcome
    error: str = ""
    reaction: float | None = None
    """seconds from a check's decision until the kernel had what follows from it, if one did"""


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The daemon itself, for ``describe_status``. Times are in seconds since the epoch.

    ``problems`` is what it cannot do now though it runs, a line each.
    """

    pid: int
    started: float
    document: Path
    accepted_at: float | None = None
    refused: Refusal | None = None
    problems: tuple[str, ...] = ()
    last_cycle: Cycle | None = None
    version: str = __version__


class Control(Protocol):
    """The running daemon, as its faces see it.

    Every method may raise BusyError. Those that change return when it is on the disk and the
    kernel has it; they raise KernelError or StateError when that failed. What is on the disk by
    then goes on to be tried.
    """

    async def status(self) -> dict[str, Any]:
        """The object of ``tula status --json``, by ``describe_status``."""

    async def events(self, after: int | None, limit: int) -> list[Event]:
        """As ``tula.model.event.choose_events`` chooses them."""

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        """Where a flow goes by the kernel's tables, else by the document that runs.

        With ``datagram``, where a later fragment of that datagram goes.
        """

    async def drain(self, backend: BackendName, deadline: float | None) -> None:
        """No new connections; those that it has go on, at most ``deadline`` seconds from now.

        Raises NoSuchBackendError, as all that name a backend.
        """

    async def undrain(self, backend: BackendName) -> None:
        """Takes ``drain`` back; nothing happens when it was not drained."""

    async def disable(self, backend: BackendName) -> None:
        """No connections at all: those that it has are given up, their flows chosen anew."""

    async def enable(self, backend: BackendName) -> None:
        """Takes ``disable`` back; nothing happens when it was not disabled."""

    async def set_weight(self, backend: BackendName, weight: int | None) -> None:
        """Another weight (0 to 65535) than the document's; None: the document's again."""

    async def apply(self, source: bytes | None, force: bool) -> ApplyOutcome:
        """Reads the document's file again and brings the kernel to it; what SIGHUP does.

        ``source`` is the text that the caller means; raises RefusedError when the file holds
        another. ``force`` allows a service to take this machine's SSH port.
        """

    async def plan(self, source: bytes | None, force: bool) -> ApplyOutcome:
        """What a document would change here, or None: the one that runs; changes nothing.

        By the backends' health as it is, so that what is down on purpose is no difference.
        """

    async def metrics(self) -> Snapshot:
        """The figures now."""


def find_backend(config: Config, name: BackendName) -> Backend:
    """The backend of that name. Raises NoSuchBackendError, with names that are like it."""
    known = {
        (service.name, backend.name): backend
        for service in config.services
        for backend in service.backends
    }
    if name in known:
        return known[name]
    # A name alone is looked for first: comparing with 25,000 takes a second.
    near = [f"{service}/{backend}" for service, backend in known if backend == name[1]]
    if not near:
        candidates = [f"{s}/{b}" for s, b in known if s == name[0]] or ["/".join(n) for n in known]
        near = difflib.get_close_matches("/".join(name), candidates[:5000], 3)
    raise NoSuchBackendError(name, tuple(near[:3]))
