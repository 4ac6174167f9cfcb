"""Health of backends, the operator's overrides, and how a backend counts by both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tula.model.advice import Advice
from tula.model.config import IPAddress

BackendName = tuple[str, str]
"""A service's name and the name of one of its backends."""


class State(StrEnum):
    """A backend's state as users see it."""

    UP = "up"
    DOWN = "down"
    DRAINING = "draining"
    DISABLED = "disabled"
    UNKNOWN = "unknown"
    """never checked, in service"""


@dataclass(frozen=True, slots=True)
class Health:
    """What the monitors found of one backend of one service; ``up`` is None until they know.

    ``since`` is when ``up`` became what it is, in seconds since the epoch: people read it, and
    nothing is decided by it. ``evidence`` is one line, such as "tcp to
    10.0.0.100 port 80: connection refused". ``warning`` is a problem that does not make it down,
    such as a certificate that expires soon. ``advice`` is what its checks say beside that, one
    each for those that say something.
    """

    up: bool | None
    since: float
    evidence: str = ""
    warning: str = ""
    advice: tuple[Advice, ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """What the operator changed of a backend, on top of the configuration.

    A drain with a ``deadline`` becomes a disable when that is past; with ``release`` its persistent
    clients are chosen for again, whatever the configuration says. Times are in seconds of the
    boot clock; the store keeps them over a reboot.
    """

    drain: bool = False
    disable: bool = False
    weight: int | None = None
    since: float = 0.0
    deadline: float | None = None
    release: bool = False

    def __bool__(self) -> bool:
        return self.drain or self.disable or self.weight is not None


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """How a backend counts now.

    ``weight`` is its share of new connections. ``present``: the flows that it has stay with it;
    otherwise they are rescheduled. ``reason`` says why in one line. One that ``stands_by`` is a
    backup while others serve, or its service has too few: it gets nothing new, persistent clients'
    flows included, and would serve if those others could not, unless it is drained. One that drains
    may keep its persistent clients (``keeps_clients``): their new flows go on going there.
    """

    state: State
    weight: int
    present: bool
    reason: str = ""
    stands_by: bool = False
    keeps_clients: bool = False


@dataclass(frozen=True, slots=True)
class ProbeSocket:
    """Options of a socket whose packets go to one backend: SO_MARK and SO_PRIORITY."""

    mark: int
    priority: int


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes, and by what path.

    ``via: direct`` has no ``source``. Through the data path, a socket is
    bound to ``source`` and carries ``mark`` (SO_MARK) and ``priority`` (SO_PRIORITY),
    by which the data path knows the backend.
    """

    address: IPAddress
    port: int = 0
    source: IPAddress | None = None
    mark: int = 0
    priority: int = 0
