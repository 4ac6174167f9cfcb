"""Notifications, as families of metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tula.engine.notify_facts import ReceiverFacts

_RECEIVER = ["receiver"]


def notify_metrics(receivers: Iterable[ReceiverFacts]) -> Iterator[Metric]:
    """Those of one moment."""
    sent = CounterMetricFamily(
        "tula_notifications",
        "Messages to a receiver: sent, or failed tries; and events that were given_up.",
        labels=[*_RECEIVER, "result"],
    )
    waiting = GaugeMetricFamily(
        "tula_notifications_waiting_events",
        "Events that the receiver is still to be told.",
        labels=_RECEIVER,
    )
    failing = GaugeMetricFamily(
        "tula_notifications_failing", "1 while the last try failed.", labels=_RECEIVER
    )
    for each in receivers:
        for result in ("sent", "failed", "given_up"):
            sent.add_metric([each.name, result], getattr(each, result))
        waiting.add_metric([each.name], each.waiting + each.held)
        failing.add_metric([each.name], int(each.failing_since is not None))
    yield from (sent, waiting, failing)
