"""The answers to what is asked of the daemon, from what is published and what the kernel counts.

Pure but for what the kernel is asked, and the same in a thread of the daemon and in a process
beside it (``tula.daemon.readers``). Nothing here is shared with the writer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tula.config.load import ConfigError, LoadedConfig, Positions, parse_config
from tula.daemon.connection_counts import name_counts
from tula.daemon.kernel_check import KernelCheck, Wanted
from tula.daemon.measured import Probes, backend_statistics, service_statistics
from tula.daemon.outcomes import describe_outcome
from tula.daemon.problems import describe_problem, place_problems
from tula.daemon.snapshot import Connections
from tula.engine.balancer import Balancer
from tula.engine.bgp_view import router_sessions
from tula.engine.control import ApplyOutcome, DaemonFacts
from tula.engine.follow import trace_now
from tula.engine.kernel_state import KernelState
from tula.engine.peer_view import flow_counts
from tula.engine.persistent_clients import describe_clients
from tula.engine.persistent_view import scope_uses
from tula.engine.rates import RateMeter, Rates
from tula.engine.reader import Adapters, Reader
from tula.engine.statistics import (
    CycleStatistics,
    DurationStatistics,
    LatenessStatistics,
    Statistics,
)
from tula.engine.status import describe_status
from tula.engine.store import Remembered, Store
from tula.metrics.render import render_metrics
from tula.model.client_scopes import ClientScope
from tula.model.config import Config, IPAddress
from tula.model.flow import Flow
from tula.model.health import BackendName, BackendStatus, Health, Override
from tula.model.problem import ProblemsError
from tula.model.stats import BackendKey, Count, Stats
from tula.plan.backend_status import (
    BackendStatuses,
    Shares,
    plan_backend_statuses,
)
from tula.plan.first_pass import NONE_WAIT, Waiting, plan_waiting
from tula.plan.trace import Trace

_COUNTED_WITHIN = 0.1
"""Seconds that a status waits for a count of connections."""
_COUNTLESS = 60.0
"""Seconds without another try after one that took longer."""


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """``tula status``: answered with JSON."""


@dataclass(frozen=True, slots=True)
class MetricsRequest:
    """``/metrics``: answered with Prometheus's text."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Reads the counters, from which the next status tells rates: answered with those of the
    data path as a whole."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """``tula trace``: answered with a Trace."""

    flow: Flow
    datagram: int | None


@dataclass(frozen=True, slots=True)
class ClientsRequest:
    """``tula persistence list``: answered with JSON."""

    scopes: tuple[ClientScope, ...]
    client: IPAddress | None
    limit: int


@dataclass(frozen=True, slots=True)
class CountRequest:
    """Connections by service and Backend.key, see ``DataPath.connections``."""

    limit: float
    empty: frozenset[BackendKey] = frozenset()


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """``tula plan`` of a configuration's text, or of the running one: an ApplyOutcome."""

    source: bytes | None
    force: bool


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Is the kernel what the last change left? Answered with a Comparison."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether anything would be changed, and what is in the way, a line each."""

    differs: bool
    problems: tuple[str, ...] = ()


Request = (
    StatusRequest
    | MetricsRequest
    | SampleRequest
    | TraceRequest
    | ClientsRequest
    | CountRequest
    | PlanRequest
    | CompareRequest
)
Answer = (
    bytes
    | Trace
    | ApplyOutcome
    | Comparison
    | Mapping[BackendKey, int]
    | Mapping[str, Count]
    | None
)


@dataclass(frozen=True, slots=True)
class View:
    """What an answer is made of; ``now`` and ``entered`` are by the boot clock."""

    configuration: LoadedConfig
    """the accepted configuration"""
    now: float
    facts: DaemonFacts
    statuses: Mapping[BackendName, BackendStatus] = field(default_factory=dict)
    """as the last change left them in the kernel"""
    panicking: frozenset[str] = frozenset()
    findings: Mapping[BackendName, Health] = field(default_factory=dict)
    overrides: Mapping[BackendName, Override] = field(default_factory=dict)
    entered: Mapping[BackendName, float] = field(default_factory=dict)
    waiting: Waiting = NONE_WAIT
    shares: Shares = field(default_factory=dict)
    connections: Connections | None = None
    remembered: Remembered = field(default_factory=Remembered)
    revision: int | None = None
    """the data path's, as the last change left it"""
    probes: Probes = field(default_factory=dict)
    cycles: CycleStatistics = field(default_factory=CycleStatistics)
    lateness: LatenessStatistics = field(default_factory=LatenessStatistics)
    durations: Mapping[str, DurationStatistics] = field(default_factory=dict)
    """of the probes, by service"""
    restarts: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, Count] = field(default_factory=dict)
    """what the daemon counts beside the data path, by name"""

    @property
    def config(self) -> Config:
        """The configuration's values."""
        return self.configuration.config


NO_CONFIGURATION = LoadedConfig(Config((), ()), "", Positions(), [])
"""Before a configuration was ever accepted."""


class _Published(Store):
    """What a view says in place of the state directory, which a change may be about to replace."""

    def __init__(self, remembered: Remembered, configuration: bytes | None = None) -> None:
        super().__init__(Path("/nonexistent"))
        self._published = remembered
        self._configuration = configuration

    def remembered(self) -> Remembered:
        return self._published

    def configuration(self) -> bytes | None:
        return self._configuration


class Answers:
    """Answers one request after the other; keeps what makes the next answer cheaper or right."""

    def __init__(self, kernel: Adapters) -> None:
        self._kernel = kernel
        self._latest = BackendStatuses()
        self._totals: Mapping[BackendKey, Count] = {}
        self._check = KernelCheck()
        self._rates = RateMeter()
        self._countless_until = 0.0

    def answer(self, request: Request, view: View) -> Answer:
        """The answer. Raises KernelError and StateError."""
        match request:
            case CountRequest(limit, empty):
                return self._reader(view).connections(limit, empty)
            case StatusRequest():
                return self._status(view)
            case MetricsRequest():
                return render_metrics(self._statistics(view))
            case SampleRequest():
                stats = self._stats(self._reader(view), view)
                self._rates_of(view, stats)
                return stats.counters
            case TraceRequest(flow, datagram):
                return trace_now(
                    *(
                        self._balancer(view),
                        view.config,
                        view.statuses,
                        flow,
                        datagram,
                        view.shares,
                    ),
                    in_sync=lambda: self._look(view).in_sync,
                )
            case ClientsRequest(scopes, client, limit):
                held = self._reader(view).clients(scopes, client, limit)
                return json.dumps(describe_clients(view.config, held)).encode()
            case PlanRequest():
                return self._plan(request, view)
            case CompareRequest():
                return self._compare(view)

    def _reader(self, view: View) -> Reader:
        return Reader(self._kernel, _Published(view.remembered))

    def _rates_of(self, view: View, stats: Stats) -> Rates | None:
        # Before the first cycle, what was counted before this daemon is not known.
        return None if view.revision is None else self._rates.note(time.monotonic(), stats.backends)

    def _status(self, view: View) -> bytes:
        reader = self._reader(view)
        stats = self._stats(reader, view)
        rates = self._rates_of(view, stats)
        answer = describe_status(
            view.config,
            stats.backends,
            stats.counters,
            stats.tables,
            reader.endpoints(view.config),
            statuses=self._statuses(view),
            findings=view.findings,
            connections=self._connections(reader, view),
            panics=view.panicking,
            daemon=view.facts,
            kernel=self._look(view),
            rates=rates,
            no_backend=stats.no_backend,
            refused=stats.refused,
            bgp=reader.bgp_sessions(view.config),
        )
        return json.dumps(answer).encode()

    def _connections(self, reader: Reader, view: View) -> Connections | None:
        """As they were counted last, else counted now, where that is soon done."""
        if view.connections is not None or not view.config.connections.enabled:
            return view.connections
        now = time.monotonic()
        if now < self._countless_until:
            return None
        counts = reader.connections(_COUNTED_WITHIN)
        if counts is None:
            self._countless_until = now + _COUNTLESS
            return None
        return name_counts(view.config, counts)

    def _look(self, view: View) -> KernelState:
        wanted = Wanted(view.config, view.statuses, view.shares, view.revision)
        return self._check.look(self._balancer(view), wanted)

    def _statuses(self, view: View) -> Mapping[BackendName, BackendStatus]:
        """How backends stand in the kernel, with the reasons of the latest findings."""
        self._latest = plan_backend_statuses(
            view.config,
            view.findings,
            view.overrides,
            view.now,
            view.entered,
            self._latest,
            view.waiting,
        )
        # What is found now is true of the kernel only after the next cycle.
        return {
            name: newer
            if (status := view.statuses.get(name)) is None
            or replace(newer, reason=status.reason) == status
            else status
            for name, newer in self._latest.of.items()
        }

    def _stats(self, reader: Reader, view: View) -> Stats:
        """What is counted, which never falls because of a change that is under way.

        Elements that leave take their counters along, and the writer publishes what they counted
        only when it is done. Until then, the data path's revision is not the published one, and
        each total is at least what it was.
        """
        stats = reader.stats()
        stats = replace(stats, counters={**stats.counters, **view.counters})
        if view.revision != reader.revision():
            last, found = self._totals, stats.backends
            kept = {key: count for key, count in last.items() if key not in found}
            grown = {key: _larger(count, last.get(key, Count())) for key, count in found.items()}
            stats = replace(stats, backends=kept | grown)
        self._totals = stats.backends
        return stats

    def _plan(self, request: PlanRequest, view: View) -> ApplyOutcome:
        configuration = view.configuration
        try:
            if request.source is not None:
                configuration = parse_config(request.source)
            config = configuration.config
            statuses = plan_backend_statuses(
                config,
                view.findings,
                view.overrides,
                view.now,
                view.entered,
                waiting=plan_waiting(view.config, view.waiting, config),
            )
            change = self._balancer(view).plan(
                configuration.config,
                configuration.source.encode(),
                force=request.force,
                statuses=statuses.of,
                shares=view.shares,
            )
        except ConfigError as error:
            return ApplyOutcome(problems=place_problems(error, error.positions))
        except ProblemsError as error:
            return ApplyOutcome(problems=place_problems(error, configuration.positions))
        return describe_outcome(view.config, configuration, change)

    def _compare(self, view: View) -> Comparison:
        change, problems = self._balancer(view).compare(view.config, view.statuses, view.shares)
        return Comparison(bool(change), tuple(map(describe_problem, problems)))

    def _balancer(self, view: View) -> Balancer:
        accepted = view.configuration.source.encode()
        return Balancer(self._kernel, _Published(view.remembered, accepted), lambda: view.now)

    def _statistics(self, view: View) -> Statistics:
        reader = self._reader(view)
        stats, facts = self._stats(reader, view), view.facts
        self._rates_of(view, stats)
        counts = stats.backends
        return Statistics(
            services=tuple(
                service_statistics(
                    view.config,
                    stats,
                    view.panicking,
                    view.statuses,
                    view.durations,
                )
            ),
            backends=tuple(
                backend_statistics(
                    view.config, counts, view.statuses, view.probes, view.connections
                )
            ),
            cycles=view.cycles,
            lateness=view.lateness,
            named=stats.counters,
            tables=stats.tables,
            clients=tuple(scope_uses(view.config, stats.tables)),
            restarts=view.restarts,
            configuration_accepted=facts.accepted_at,
            configuration_refused=facts.refused is not None or bool(facts.deferred),
            configuration_differs=facts.differs_since is not None,
            balancers=replace(facts.balancers, flows=flow_counts(stats.counters)),
            notify=facts.notify,
            bgp=router_sessions(view.config, reader.bgp_sessions(view.config)),
        )


def _larger(one: Count, other: Count) -> Count:
    return replace(one, packets=max(one.packets, other.packets), bytes=max(one.bytes, other.bytes))
