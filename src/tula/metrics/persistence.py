"""Persistent clients as families of metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tula.engine.statistics import Statistics
from tula.model.stats import CLIENTS_FULL, Count

_SCOPE = ["scope"]


def persistence_metrics(statistics: Statistics) -> Iterator[Metric]:
    """A sample for each scope; none where no service has persistence."""
    clients = GaugeMetricFamily(
        "tula_persistence_clients", "Persistent clients that are remembered.", labels=_SCOPE
    )
    size = GaugeMetricFamily(
        "tula_persistence_size",
        "Persistent clients of each IP version that can be remembered.",
        labels=_SCOPE,
    )
    for use in statistics.clients:
        if use.clients is not None:
            clients.add_metric([use.scope.label], use.clients)
        size.add_metric([use.scope.label], use.size)
    full = CounterMetricFamily(
        "tula_persistence_full", "Packets of new clients that were not remembered: it was full."
    )
    if statistics.clients:
        full.add_metric([], statistics.named.get(CLIENTS_FULL, Count()).packets)
    yield from (clients, size, full)
