"""What is measured of each service and backend, for the metrics. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from tula.daemon.snapshot import Connections
from tula.engine.statistics import (
    BackendStatistics,
    DurationStatistics,
    ProbeStatistics,
    ServiceStatistics,
)
from tula.model.config import Config
from tula.model.health import BackendName, BackendStatus, State
from tula.model.stats import BackendKey, Count, Stats, refused_packets
from tula.plan.pools import serves_by_backups

Probes = Mapping[BackendName, tuple[ProbeStatistics, ...]]


def service_statistics(
    config: Config,
    stats: Stats,
    panicking: Collection[str],
    statuses: Mapping[BackendName, BackendStatus],
    durations: Mapping[str, DurationStatistics],
) -> Iterable[ServiceStatistics]:
    """Each service's."""
    totals: dict[str, Count] = {}
    for (name, _), count in stats.backends.items():
        totals[name] = totals.get(name, Count()) + count
    for service in config.services:
        name = service.name
        total, panic = totals.get(name, Count()), name in panicking
        dropped = stats.no_backend.get(name, Count()).packets
        backups = serves_by_backups(service, statuses)
        yield ServiceStatistics(
            *(name, total, dropped, panic, durations.get(name), backups),
            refused_packets(stats.refused, name),
        )


def backend_statistics(
    config: Config,
    counts: Mapping[BackendKey, Count],
    statuses: Mapping[BackendName, BackendStatus],
    probes: Probes,
    connections: Connections | None,
) -> Iterable[BackendStatistics]:
    """Each backend's."""
    unknown = BackendStatus(State.UNKNOWN, 0, present=True)
    for service in config.services:
        for backend in service.backends:
            name = (service.name, backend.name)
            status, probed = statuses.get(name, unknown), probes.get(name, ())
            yield BackendStatistics(
                service=service.name,
                backend=backend.name,
                state=status.state,
                weight=status.weight,
                count=counts.get((service.name, backend.key), Count()),
                connections=None if connections is None else connections.get(name, 0),
                flaps=sum(probe.flaps for probe in probed),
                probes=probed,
            )
