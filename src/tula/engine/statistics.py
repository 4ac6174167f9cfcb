"""The daemon's statistics at one moment, as ``/metrics`` shows them.

Totals never fall while the daemon runs. Times are in seconds since the epoch, durations in
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tula.engine.notify_facts import ReceiverFacts
from tula.engine.peer_facts import BalancerFacts
from tula.engine.persistent_view import ScopeUse
from tula.model.bgp import BgpSessionState
from tula.model.health import State
from tula.model.stats import Count, TableUse


class CycleOutcome(StrEnum):
    """How one cycle of the reconciler ended."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    """the desired state had changed, and the kernel with it"""
    REPAIRED = "repaired"
    """the kernel was not as the daemon had left it"""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProbeStatistics:
    """One check of one backend; ``check`` tells the checks of a backend apart: its type, and a
    number where the service has several of it (``http``, ``http-2``)."""

    check: str
    seconds: float | None = None
    """how long the last probe took; None before the first"""
    failures: int = 0
    flaps: int = 0
    """how often the check's result changed between passing and failing"""


@dataclass(frozen=True, slots=True)
class BackendStatistics:
    """One backend of one service."""

    service: str
    backend: str
    state: State
    weight: int
    """its share of new connections now, 0 when it gets none"""
    count: Count = field(default_factory=Count)
    connections: int | None = None
    flaps: int = 0
    """how often it went up or down"""
    probes: tuple[ProbeStatistics, ...] = ()


@dataclass(frozen=True, slots=True)
class DurationStatistics:
    """How long probes took: ``buckets`` are (upper bound, probes that took no longer), the last
    one unbounded; ``seconds`` is the sum over all probes."""

    buckets: tuple[tuple[float, int], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """One service; its count includes backends that have been removed."""

    service: str
    count: Count = field(default_factory=Count)
    no_backend: int = 0
    """packets that none of its backends could take"""
    panic: bool = False
    durations: DurationStatistics | None = None
    """of its probes; None for a service that is not checked"""
    on_backups: bool = False
    """its backups serve, since too few others can"""
    refused: Mapping[str, int] = field(default_factory=dict)
    """packets of clients that were not let in, by DENIED and LIMITED"""


@dataclass(frozen=True, slots=True)
class CycleStatistics:
    """The reconciler's cycles since the daemon started."""

    outcomes: Mapping[CycleOutcome, int] = field(default_factory=dict)
    seconds: float = 0.0
    """the sum over all cycles"""
    reactions: int = 0
    """how often a health check's verdict changed the kernel"""
    reaction_seconds: float = 0.0
    """from the verdict until the kernel was changed, the sum over all of them"""


@dataclass(frozen=True, slots=True)
class LatenessStatistics:
    """By how much probes started late; ``worst`` is of the last minute or two."""

    starts: int = 0
    seconds: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything that is counted."""

    services: tuple[ServiceStatistics, ...] = ()
    backends: tuple[BackendStatistics, ...] = ()
    cycles: CycleStatistics = field(default_factory=CycleStatistics)
    lateness: LatenessStatistics = field(default_factory=LatenessStatistics)
    named: Mapping[str, Count] = field(default_factory=dict)
    """the data path's own counters, by name, such as ``no_backend``"""
    tables: tuple[TableUse, ...] = ()
    clients: tuple[ScopeUse, ...] = ()
    """the persistent clients of each scope"""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """background tasks that failed and were started again, by name"""
    configuration_accepted: float | None = None
    configuration_refused: bool = False
    """the file was refused or cannot be read, and an older configuration runs"""
    configuration_differs: bool = False
    """the file holds another configuration than the one that runs"""
    balancers: BalancerFacts = field(default_factory=BalancerFacts)
    """this balancer among those of its configuration"""
    notify: tuple[ReceiverFacts, ...] = ()
    """who is told of changes"""
    bgp: tuple[BgpSessionState, ...] = ()
    """the session with each router"""
