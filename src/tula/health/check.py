"""What the checker is asked to do, what a probe finds, and how the checker tells of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tula.model.advice import Admin, Words
from tula.model.health import BackendName, ProbeTarget
from tula.model.monitor import HealthMonitor

_LONGEST = 160


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of one backend for one service; several services may share one.

    ``monitor`` is its position in the service's monitors; one with several VIPs has a check for
    each. ``direct``, for ``via: dsr``, is the backend's own address: asked when the probe fails,
    to tell "serves, but does not accept the VIP" from "does not serve". ``obstacle``: why this
    machine cannot ask now; until that is over, the verdict stays what it is.
    """

    backend: BackendName
    monitor: int
    settings: HealthMonitor
    target: ProbeTarget
    direct: ProbeTarget | None = None
    obstacle: str = ""


class FailureKind(StrEnum):
    """How a probe failed, as far as it says where to look."""

    REFUSED = "refused"
    """something answered that nothing listens"""
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    """a router, or this machine, says that there is no route"""
    ANSWER = "answer"
    """an answer came, and was wrong"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one probe; ``seconds`` is how long it took.

    ``passed`` is None when it could not be sent for a reason of this machine's own, such as too
    many open files: that says nothing of the backend and counts neither way. ``warning`` is what
    is wrong and does not count; ``words`` what the answer says beside that it passes.
    """

    passed: bool | None
    evidence: str
    seconds: float = 0.0
    warning: str = ""
    failure: FailureKind | None = None
    words: Words | None = None

    @property
    def drains(self) -> bool:
        """Whether the answer says that the backend is to get no new flows."""
        return self.words is not None and self.words.admin is Admin.DRAIN


@dataclass(frozen=True, slots=True)
class ProbeView:
    """How one probe stands.

    ``backends`` are those that it is sent for. ``passes`` and ``failures`` are consecutive.
    ``late`` is by how much its last start was late, in seconds.
    """

    kind: str
    target: ProbeTarget
    backends: tuple[BackendName, ...]
    up: bool | None
    outcome: Outcome | None
    passes: int
    failures: int
    failed: int
    flaps: int
    late: float


def clean(text: str | bytes, longest: int = _LONGEST) -> str:
    """Text of a server's on one line: control characters escaped, the length bounded.

    Servers are not trusted with a line that people read.
    """
    if isinstance(text, bytes):
        text = text[: 4 * longest].decode("utf-8", "backslashreplace")
    cut = text[:longest].strip()
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
    return shown if len(text) <= longest and len(shown) <= longest else f"{shown[:longest]}..."
