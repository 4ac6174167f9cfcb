"""The interface by which API and command line ask the daemon, and change it.

An implementation answers from immutable snapshots, and never blocks the event loop: what asks the
kernel or takes long runs in another thread or process.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tula.engine.backend_view import BackendView
from tula.engine.everywhere import Joint, JointControl
from tula.engine.history import Entry
from tula.engine.notify_facts import ReceiverFacts, TestResult
from tula.engine.peer_facts import BalancerFacts
from tula.engine.persistent_clients import ClientControl
from tula.engine.statistics import CycleOutcome
from tula.model.config import Backend, Config
from tula.model.event import EventPage
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
    """The running configuration has no such backend; ``near`` are names that may be meant."""

    def __init__(self, backend: BackendName, near: tuple[str, ...] = ()) -> None:
        name = "/".join(backend)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        super().__init__(f"no backend {name} in the running configuration{hint}")
        self.backend = backend
        self.near = near


class LossError(ControlError):
    """That takes so much out of service that it must be asked for with ``yes``; a line for each."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class NothingToConfirmError(ControlError):
    """No configuration waits for confirmation."""

    def __init__(self) -> None:
        super().__init__("no configuration waits for confirmation: it was confirmed, or went back")


class RefusedError(ControlError):
    """The daemon does not do that, and asking again does not help; a line for each reason."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class ConditionError(ControlError):
    """Another configuration runs than the one that the change was made for; ``digest`` is its."""

    def __init__(self, digest: str) -> None:
        super().__init__(
            "another configuration runs than the one that If-Match names: read it again, and make "
            "the change to that"
        )
        self.digest = digest


class SourceError(ControlError):
    """Somebody else owns the configuration (``api: source``)."""


class BusyError(ControlError):
    """Not now: the daemon starts, ends, or another change is under way."""


@dataclass(frozen=True, slots=True)
class ApplyOutcome:
    """The result of apply or plan. With problems nothing has changed, and the configuration
    before goes on."""

    changed: bool = False
    steps: bytes = b"[]"
    """JSON, as ``tula.engine.steps.render_steps`` gives it"""
    problems: tuple[PlacedProblem, ...] = ()
    warnings: tuple[PlacedProblem, ...] = ()
    summary: tuple[str, ...] = ()
    """the same as the steps in the user's terms, by ``describe_plan``"""
    digest: str = ""
    """SHA-256 of the text that it is about"""


Match = frozenset[str] | None
"""The configurations that a change was made for, one of which must run, by their digests; None:
any."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a configuration accepted, and how.

    ``force`` allows a service to take this machine's SSH port; ``yes`` allows what LossError is
    about; with ``late``, interfaces that it names may come later. With ``confirm``, in seconds,
    the configuration before comes back unless it is confirmed in that time. With ``dry``, all is
    checked and nothing changed.

    ``network``: it is new content from the network, which ``api: source`` and what comes only from
    the local file hold for; the former not when it is a ``peer`` that sends it. ``from_file``: it
    is what the daemon's ``file`` holds. ``known`` is what that file has of what comes only from it.
    ``joint``: it is a part of a change on all balancers, which alone may confirm it.
    """

    by: str = ""
    how: str = "apply"
    force: bool = False
    yes: bool = False
    confirm: float | None = None
    late: bool = False
    match: Match = None
    dry: bool = False
    network: bool = False
    from_file: bool = False
    file: str = ""
    known: frozenset[Any] = frozenset()
    peer: bool = False
    joint: Joint | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """``number`` is that of the configuration that runs again, ``file_differs`` whether the
    daemon's file holds another one. ``summary`` is as in ``ApplyOutcome``, ``digest`` of the
    configuration that runs."""

    number: int
    changed: bool
    file: str
    file_differs: bool
    summary: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ConfigurationText:
    """The running configuration; ``digest`` is the SHA-256 of the text with its secrets, whether
    those are hidden in ``text`` or not."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Overridden:
    """A backend before and after a change of its override."""

    before: BackendView
    after: BackendView


@dataclass(frozen=True, slots=True)
class Stood:
    """What has come of ``stand_by``. ``role`` is this balancer's at that moment, which an engine
    changes a little later; ``alive`` are the peers that are heard."""

    standby: bool
    changed: bool
    role: str | None = None
    alive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The file's configuration was refused, for these reasons; an older one runs."""

    since: float
    problems: tuple[PlacedProblem, ...]


@dataclass(frozen=True, slots=True)
class FileState:
    """How the daemon's file stands to the configuration that runs.

    ``differs_since`` is in seconds since the epoch; None: it does not differ, or cannot be read.
    """

    digest: str | None = None
    differs_since: float | None = None


@dataclass(frozen=True, slots=True)
class Cycle:
    """The last cycle of the reconciler; ``error`` is one line when it failed."""

    time: float
    seconds: float
    outcome: CycleOutcome
    error: str = ""
    reaction: float | None = None
    """seconds from a health check's verdict until the kernel was changed by it, if it was"""


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """Where the network is answered: ``https://10.0.0.2:8420``; what of it does not work, and the
    SHA-256 of the certificate in hexadecimal, empty while there is none."""

    listening: tuple[str, ...] = ()
    fingerprint: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """The daemon itself, for ``describe_status``. Times are in seconds since the epoch.

    ``problems`` is what does not work now though the daemon runs, a line each.
    """

    pid: int
    started: float
    file: Path
    accepted_at: float | None = None
    refused: Refusal | None = None
    deferred: str = ""
    """why the file's configuration is not taken yet, though nothing is wrong with it"""
    source: str = "file"
    """who owns the configuration: ``file`` or ``api``"""
    differs_since: float | None = None
    """since when the file has held another configuration than the one that runs"""
    confirm_until: float | None = None
    """when the configuration before comes back, unless this one is confirmed"""
    confirm_everywhere: bool = False
    """it waits on all balancers"""
    problems: tuple[str, ...] = ()
    digest: str | None = None
    """SHA-256 of the accepted configuration's text"""
    last_cycle: Cycle | None = None
    network: NetworkFacts = field(default_factory=NetworkFacts)
    version: str = __version__
    balancers: BalancerFacts = field(default_factory=BalancerFacts)
    notify: tuple[ReceiverFacts, ...] = ()


class Notifications(Protocol):
    """Who is told when something changes."""

    async def test(self) -> tuple[TestResult, ...]:
        """Sends each receiver a message that says so, at once, and tells what became of it.
        Raises TimeoutError."""


class Control(Protocol):
    """The running daemon. ``by`` is who asks for a change. With ``dry``, a change is checked, and
    refused for the same reasons, and nothing is changed: what is returned is what would be.
    ``everywhere`` has what is asked of all balancers, ``notifications`` who is told of changes;
    None where there is no such thing. ``clients`` has what is asked of persistent clients.

    Every method may raise BusyError. Those that change something return when it is on the disk
    and in the kernel; they raise KernelError or StateError when that failed. What is on the disk
    by then is tried again.
    """

    everywhere: JointControl | None
    clients: ClientControl
    notifications: Notifications | None

    async def status(self) -> bytes:
        """The JSON that ``tula status --json`` prints, by ``describe_status``."""

    async def backend(self, backend: BackendName) -> BackendView:
        """How one backend counts, and which overrides are in force. Raises NoSuchBackendError."""

    async def own_view(self, name: str) -> bytes | None:
        """All backends of that name, as JSON by ``describe_own``; None if there are none."""

    async def peer_view(self, known: str = "", notified: str = "") -> bytes:
        """What other balancers must know of this one, as JSON by ``View.describe``; ``known`` and
        ``notified``: the digests of the details, and of what was sent, that the caller has got."""

    async def share_flows(self) -> None:
        """Has the flows that others must know told to them again. Raises KernelError."""

    async def excerpt(self, name: str) -> str | None:
        """What of the running configuration concerns them, by ``backend_excerpt``."""

    async def events(self, after: int | None, limit: int, epoch: str | None = None) -> EventPage:
        """As ``EventLog.page`` chooses them."""

    async def next_event(self, after: int) -> None:
        """Returns once there is an event after that number, at once if there is one."""

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        """Where a flow goes by the kernel's tables, else by the running configuration.

        With ``datagram``, where a later fragment of that datagram goes.
        """

    async def drain(
        self,
        backend: BackendName,
        deadline: float | None,
        *,
        release: bool = False,
        by: str = "",
        yes: bool = False,
        dry: bool = False,
    ) -> Overridden:
        """Stops new connections; existing ones go on, at most ``deadline`` seconds from now.
        With ``release``, new connections of persistent clients go elsewhere in any case.

        Raises NoSuchBackendError, as all that name a backend; LossError for the last one that
        serves, unless ``yes``, as ``disable`` and ``set_weight`` do.
        """

    async def undrain(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        """Takes ``drain`` back; nothing happens when it was not drained."""

    async def disable(
        self, backend: BackendName, *, by: str = "", yes: bool = False, dry: bool = False
    ) -> Overridden:
        """Stops all traffic: existing connections move to other backends, which reset them."""

    async def enable(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        """Takes ``disable`` back; nothing happens when it was not disabled."""

    async def set_weight(
        self,
        backend: BackendName,
        weight: int | None,
        *,
        by: str = "",
        yes: bool = False,
        dry: bool = False,
    ) -> Overridden:
        """Overrides the configuration's weight (0 to 65535); None: the configuration's again."""

    async def stand_by(self, standby: bool, *, by: str = "", dry: bool = False) -> Stood:
        """Wants other balancers to have the VIPs, or no longer. It lasts over a restart."""

    async def apply(self, source: bytes | None, order: Order) -> ApplyOutcome:
        """Accepts a configuration and brings the kernel to it; None: that of the daemon's file,
        read anew. Raises LossError, and ConditionError for the order's ``match``, as all changes
        of the configuration do."""

    async def configuration(self, *, hidden: bool) -> ConfigurationText:
        """The running configuration's text; ``hidden``: without its secrets."""

    async def confirm(self, by: str, *, match: Match = None, dry: bool = False) -> str:
        """Keeps the configuration that waits for it, and returns its digest. Raises
        NothingToConfirmError."""

    async def rollback(
        self, number: int | str | None, by: str, *, match: Match = None, dry: bool = False
    ) -> Rollback:
        """Goes back to an accepted configuration, by its number, its digest or the beginning of
        that, by default the one before. Raises RefusedError if there is none. What waits for
        confirmation is given up."""

    async def history(self) -> tuple[Entry, ...]:
        """The accepted configurations, the oldest first; the last one is in force."""

    async def diff(self, number: int | None) -> str:
        """How an accepted configuration, by default the one before, differs from the one that
        runs, as a unified diff without secrets. Raises RefusedError if there is none."""

    async def plan(self, source: bytes | None, force: bool, *, file: bool = False) -> ApplyOutcome:
        """What a configuration would change here; None: the running one, or with ``file`` that
        of the daemon's file. Changes nothing.

        Uses the backends' present health, so what is down on purpose is no difference.
        """

    async def metrics(self) -> bytes:
        """The text that Prometheus reads."""


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
