"""How backends stand: what the monitors found, what the operator said, what follows from both.

Times are in seconds since the epoch, so that they mean something after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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
    """What its monitors say of one backend of one service; ``up`` is None until they know.

    ``since`` is when ``up`` became what it is. ``evidence`` is one line, such as "tcp to
    10.0.0.100 port 80: connection refused". ``warning`` is what is wrong and does not count, such
    as a certificate that expires soon.
    """

    up: bool | None
    since: float
    evidence: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Override:
    """What the operator said of a backend, beside the document.

    A drain with a ``deadline`` becomes a disable when that is past.
    """

    drain: bool = False
    disable: bool = False
    weight: int | None = None
    since: float = 0.0
    deadline: float | None = None

    def __bool__(self) -> bool:
        return self.drain or self.disable or self.weight is not None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backend counts now.

    ``weight`` is its share of new connections. ``present``: the flows that it has stay with it;
    without, they are chosen anew. ``reason`` says why in one line.
    """

    state: State
    weight: int
    present: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes, and how the packets find their way.

    ``via: direct`` has neither ``source`` nor ``backend_id``. Through the data path, a socket is
    bound to ``source`` and carries ``mark`` (SO_MARK) and ``backend_id`` (SO_PRIORITY).
    """

    address: IPAddress
    port: int = 0
    source: IPAddress | None = None
    mark: int = 0
    backend_id: int = 0
