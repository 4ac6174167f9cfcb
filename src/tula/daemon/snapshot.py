"""What the one writer publishes: the daemon's whole state at one moment, which never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.config.load import LoadedConfig
from tula.daemon.configurations import Tentative
from tula.engine.change import Applied
from tula.engine.control import Cycle, FileState, Refusal
from tula.engine.served import Standby
from tula.engine.statistics import CycleStatistics
from tula.engine.store import Remembered
from tula.health.check import Check
from tula.model.config import Config, IPAddress, Scheduler, VirtualService
from tula.model.health import BackendName, Health, Override
from tula.model.monitor import HealthPolicy
from tula.plan.backend_status import BackendStatuses, Shares
from tula.plan.first_pass import NONE_WAIT, Waiting

Connections = Mapping[BackendName, int]
"""How many connections each backend has; those that have none may be left out."""


@dataclass(frozen=True, slots=True)
class PlannedChecks:
    """What is to be probed; ``policies`` are by service.

    ``settings`` are the sysctls that were set for it, ``problems`` what keeps something from
    being probed.
    """

    checks: tuple[Check, ...] = ()
    policies: Mapping[str, HealthPolicy] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after one piece of the writer's work; a later one has a higher ``revision``.

    Nothing in it is changed after it was published. ``statuses`` and ``applied`` belong to
    ``configuration``, and are what the last change left in the kernel.
    """

    revision: int = 0
    configuration: LoadedConfig | None = None
    """the running configuration"""
    accepted_at: float | None = None
    tentative: Tentative | None = None
    """what the configuration is, if it waits for confirmation"""
    refused: Refusal | None = None
    deferred: str = ""
    """why the file's configuration is not taken yet; it is tried again"""
    file: FileState = field(default_factory=FileState)
    statuses: BackendStatuses = field(default_factory=BackendStatuses)
    overrides: Mapping[BackendName, Override] = field(default_factory=dict)
    entered: Mapping[BackendName, float] = field(default_factory=dict)
    """when backends came back up, for slow start"""
    waiting: Waiting = NONE_WAIT
    """the backends that get nothing before their first pass"""
    shares: Shares = field(default_factory=dict)
    connections: Connections | None = None
    """by the last count; None while nobody needs it, or it cannot be had"""
    applied: Applied | None = None
    """what the kernel was brought to; None while that is not known"""
    remembered: Remembered = field(default_factory=Remembered)
    """the numbers in use, and the counters of what left the kernel"""
    known_revisions: frozenset[int] = frozenset()
    """the latest revisions of the data path that this process made, or compared with"""
    problems: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    """those of the problems that the last comparison of the whole kernel found"""
    unsaved: bool = False
    """the disk does not hold what the kernel was brought to; the next cycle writes it again"""
    adopted: Mapping[BackendName, Health] = field(default_factory=dict)
    """the backends that were down when the daemon before this one ended"""
    checks: PlannedChecks | None = None
    standby: Standby | None = None
    """the operator wants other balancers to have the VIPs"""
    last_cycle: Cycle | None = None
    cycles: CycleStatistics = field(default_factory=CycleStatistics)

    @property
    def forwarders(self) -> tuple[IPAddress, ...]:
        """The balancers whose MAC addresses matter."""
        return () if self.applied is None else self.applied.forwarders

    @property
    def running(self) -> Config | None:
        """The configuration that runs."""
        return None if self.configuration is None else self.configuration.config

    @property
    def least_connections(self) -> tuple[VirtualService, ...]:
        """The services of that scheduler, with the configuration's weights."""
        services = self.configuration.config.services if self.configuration is not None else ()
        return tuple(s for s in services if s.scheduler is Scheduler.LEAST_CONNECTIONS)

    @property
    def wants_connections(self) -> bool:
        """Whether somebody waits for backends to be empty, or a scheduler needs the count."""
        return any(o.drain for o in self.overrides.values()) or bool(self.least_connections)
