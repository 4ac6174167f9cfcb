"""The snapshot behind ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tula.engine.figures import (
    BackendFigures,
    LateFigures,
    ProbeFigures,
    ServiceFigures,
    Snapshot,
)
from tula.health.check import ProbeView
from tula.model.config import Config
from tula.model.health import BackendName, Standing, State
from tula.model.stats import Count

if TYPE_CHECKING:
    from tula.daemon.door import Parts


async def make_snapshot(parts: Parts) -> Snapshot:
    """The figures now. Raises KernelError and StateError."""
    reconciler, balancer = parts.reconciler, parts.balancer
    views, standings = parts.checker.describe(), reconciler.standings
    late = parts.checker.lateness()
    cycles, held = parts.driver.figures(), parts.held.counts
    document = reconciler.document
    config = document.config if document is not None else Config((), ())

    def read() -> Snapshot:
        stats = balancer.stats()
        counts = stats.backends
        return Snapshot(
            services=tuple(_services(config, counts, standings.panicking)),
            backends=tuple(_backends(config, counts, standings.of, views, held)),
            cycles=cycles,
            late=LateFigures(late.starts, late.seconds, late.worst),
            named=stats.counters,
            tables=stats.tables,
            document_accepted=reconciler.accepted_at,
            document_refused=reconciler.refused is not None or bool(reconciler.postponed),
        )

    return await asyncio.to_thread(read)


def _services(
    config: Config, counts: Mapping[tuple[str, str], Count], panicking: Iterable[str]
) -> Iterable[ServiceFigures]:
    totals: dict[str, Count] = {}
    for (service, _), count in counts.items():
        totals[service] = totals.get(service, Count()) + count
    panics = frozenset(panicking)
    for listed in config.services:
        yield ServiceFigures(listed.name, totals.get(listed.name, Count()), listed.name in panics)


def _backends(
    config: Config,
    counts: Mapping[tuple[str, str], Count],
    standings: Mapping[BackendName, Standing],
    views: Iterable[ProbeView],
    held: Mapping[BackendName, int] | None,
) -> Iterable[BackendFigures]:
    probes: dict[BackendName, list[ProbeView]] = {}
    for view in views:
        for name in view.backends:
            probes.setdefault(name, []).append(view)
    unknown = Standing(State.UNKNOWN, 0, present=True)
    for service in config.services:
        for backend in service.backends:
            name = (service.name, backend.name)
            standing, asked = standings.get(name, unknown), probes.get(name, [])
            yield BackendFigures(
                service=service.name,
                backend=backend.name,
                state=standing.state,
                weight=standing.weight,
                count=counts.get((service.name, backend.key), Count()),
                connections=None if held is None else held.get(name),
                flaps=sum(view.flaps for view in asked),
                probes=tuple(_probes(asked)),
            )


def _probes(views: Iterable[ProbeView]) -> Iterable[ProbeFigures]:
    numbers: dict[str, int] = {}
    for view in views:
        number = numbers[view.kind] = numbers.get(view.kind, 0) + 1
        yield ProbeFigures(
            check=view.kind if number == 1 else f"{view.kind}-{number}",
            seconds=view.outcome.seconds if view.outcome is not None else None,
            failures=view.failed,
        )
