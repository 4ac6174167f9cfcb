"""Statistics as families of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tula.engine.statistics import CycleOutcome, Statistics
from tula.metrics.bgp import bgp_metrics
from tula.metrics.notify import notify_metrics
from tula.metrics.peers import peer_metrics
from tula.metrics.persistence import persistence_metrics
from tula.model.health import State
from tula.model.stats import (
    CLIENTS_FULL,
    DENIED,
    FLOWS_LEARNED,
    FLOWS_SENT,
    LIMITED,
    NO_BACKEND,
    TOO_LARGE,
)
from tula.version import __version__

DROPS = frozenset({NO_BACKEND, TOO_LARGE, DENIED, LIMITED})
"""The counters of packets that are dropped; the others count packets by an unusual path."""

_FLOWS = frozenset({FLOWS_LEARNED, FLOWS_SENT, CLIENTS_FULL})
"""Those have families of their own."""
_SERVICE, _BACKEND = ["service"], ["service", "backend"]


class StatisticsCollector(Collector):
    """Yields the families of one moment, in a fixed order."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """All families; those without a sample are there with their help."""
        yield InfoMetricFamily("tula_build", "The version that runs.", {"version": __version__})
        yield from self._services()
        yield from self._backends()
        yield from self._probes()
        yield from self._cycles()
        yield from self._data_path()
        yield from self._configuration()
        yield from peer_metrics(self._statistics.balancers)
        yield from bgp_metrics(self._statistics.bgp)
        yield from persistence_metrics(self._statistics)
        yield from notify_metrics(self._statistics.notify)

    def _services(self) -> Iterator[Metric]:
        packets = CounterMetricFamily(
            "tula_service_packets", "Packets from clients, for any backend ever.", labels=_SERVICE
        )
        size = CounterMetricFamily(
            "tula_service_bytes", "Bytes from clients, for any backend ever.", labels=_SERVICE
        )
        panic = GaugeMetricFamily(
            "tula_service_panic", "1 while all backends serve since few are up.", labels=_SERVICE
        )
        backups = GaugeMetricFamily(
            "tula_service_on_backups",
            "1 while its backups serve, since too few others can.",
            labels=_SERVICE,
        )
        nobody = CounterMetricFamily(
            "tula_service_no_backend_packets",
            "Packets that no backend could take; they are dropped.",
            labels=_SERVICE,
        )
        denied = CounterMetricFamily(
            "tula_service_denied_packets",
            "Packets of clients that may not connect.",
            labels=_SERVICE,
        )
        limited = CounterMetricFamily(
            "tula_service_limited_packets",
            "Packets that began a connection too many.",
            labels=_SERVICE,
        )
        for service in self._statistics.services:
            labels = [service.service]
            denied.add_metric(labels, service.refused.get(DENIED, 0))
            limited.add_metric(labels, service.refused.get(LIMITED, 0))
            packets.add_metric(labels, service.count.packets)
            nobody.add_metric(labels, service.no_backend)
            size.add_metric(labels, service.count.bytes)
            panic.add_metric(labels, int(service.panic))
            backups.add_metric(labels, int(service.on_backups))
        yield from (packets, size, nobody, denied, limited, panic, backups)

    def _backends(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "tula_backend_state",
            "1 for the state that the backend is in.",
            labels=[*_BACKEND, "state"],
        )
        weight = GaugeMetricFamily(
            "tula_backend_weight", "Its share of new connections.", labels=_BACKEND
        )
        connections = GaugeMetricFamily(
            "tula_backend_connections", "Connections that it has.", labels=_BACKEND
        )
        packets = CounterMetricFamily(
            "tula_backend_packets", "Packets from clients.", labels=_BACKEND
        )
        size = CounterMetricFamily("tula_backend_bytes", "Bytes from clients.", labels=_BACKEND)
        flaps = CounterMetricFamily(
            "tula_backend_flaps", "How often it went up or down.", labels=_BACKEND
        )
        for backend in self._statistics.backends:
            labels = [backend.service, backend.backend]
            for each in State:
                state.add_metric([*labels, str(each)], int(backend.state is each))
            weight.add_metric(labels, backend.weight)
            if backend.connections is not None:
                connections.add_metric(labels, backend.connections)
            packets.add_metric(labels, backend.count.packets)
            size.add_metric(labels, backend.count.bytes)
            flaps.add_metric(labels, backend.flaps)
        yield from (state, weight, connections, packets, size, flaps)

    def _probes(self) -> Iterator[Metric]:
        labels = [*_BACKEND, "check"]
        durations = HistogramMetricFamily(
            "tula_probe_duration_seconds", "How long the probes took.", labels=_SERVICE
        )
        for service in self._statistics.services:
            if service.durations is not None:
                buckets = [
                    ("+Inf" if isinf(bound) else str(bound), count)
                    for bound, count in service.durations.buckets
                ]
                durations.add_metric([service.service], buckets, service.durations.seconds)
        yield durations
        seconds = GaugeMetricFamily(
            "tula_probe_last_duration_seconds", "How long the last probe took.", labels=labels
        )
        failures = CounterMetricFamily(
            "tula_probe_failures", "Probes that did not pass.", labels=labels
        )
        for backend in self._statistics.backends:
            for probe in backend.probes:
                values = [backend.service, backend.backend, probe.check]
                if probe.seconds is not None:
                    seconds.add_metric(values, probe.seconds)
                failures.add_metric(values, probe.failures)
        yield from (seconds, failures)
        lateness = self._statistics.lateness
        yield SummaryMetricFamily(
            "tula_probe_late_seconds",
            "How long after its time each probe was started.",
            count_value=lateness.starts,
            sum_value=lateness.seconds,
        )
        yield GaugeMetricFamily(
            "tula_probe_late_worst_seconds",
            "The latest start of a probe in the last minute or two.",
            lateness.worst,
        )

    def _cycles(self) -> Iterator[Metric]:
        cycles = self._statistics.cycles
        ended = CounterMetricFamily(
            "tula_reconcile_cycles",
            "Cycles of the reconciler, by their outcome.",
            labels=["outcome"],
        )
        for outcome in CycleOutcome:
            ended.add_metric([str(outcome)], cycles.outcomes.get(outcome, 0))
        yield ended
        yield SummaryMetricFamily(
            "tula_reconcile_seconds",
            "How long the cycles took.",
            count_value=sum(cycles.outcomes.values()),
            sum_value=cycles.seconds,
        )
        yield SummaryMetricFamily(
            "tula_reaction_seconds",
            "From a health check's verdict until the kernel was changed.",
            count_value=cycles.reactions,
            sum_value=cycles.reaction_seconds,
        )
        yield CounterMetricFamily(
            "tula_reconcile_failures",
            "Cycles that failed.",
            cycles.outcomes.get(CycleOutcome.FAILED, 0),
        )
        restarts = CounterMetricFamily(
            "tula_task_restarts",
            "Background tasks that failed and were restarted.",
            labels=["task"],
        )
        for name, count in sorted(self._statistics.restarts.items()):
            restarts.add_metric([name], count)
        yield restarts

    def _data_path(self) -> Iterator[Metric]:
        dropped = CounterMetricFamily(
            "tula_dropped_packets", "Packets that no backend got.", labels=["cause"]
        )
        passed = CounterMetricFamily(
            "tula_path_packets", "Packets that took an unusual path.", labels=["path"]
        )
        for name, count in sorted(self._statistics.named.items()):
            if name in _FLOWS:
                continue
            family = dropped if name in DROPS else passed
            family.add_metric([name], count.packets)
        entries = GaugeMetricFamily(
            "tula_flow_table_entries", "Flows that the table holds.", labels=["table"]
        )
        size = GaugeMetricFamily(
            "tula_flow_table_size", "Flows that the table can hold.", labels=["table"]
        )
        for table in self._statistics.tables:
            if table.scope:
                continue
            if table.entries is not None:
                entries.add_metric([table.name], table.entries)
            size.add_metric([table.name], table.size)
        yield from (dropped, passed, entries, size)

    def _configuration(self) -> Iterator[Metric]:
        accepted = GaugeMetricFamily(
            "tula_configuration_accepted_timestamp_seconds",
            "When the running configuration was accepted.",
        )
        if self._statistics.configuration_accepted is not None:
            accepted.add_metric([], self._statistics.configuration_accepted)
        yield accepted
        yield GaugeMetricFamily(
            "tula_configuration_refused",
            "1 while the file is refused or cannot be read, and an older configuration runs.",
            int(self._statistics.configuration_refused),
        )
        yield GaugeMetricFamily(
            "tula_configuration_file_differs",
            "1 while the file holds another configuration than the one that runs.",
            int(self._statistics.configuration_differs),
        )
