"""The other balancers, as families of metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tula.engine.peer_facts import BalancerFacts

_PEER = ["peer"]


def peer_metrics(facts: BalancerFacts) -> Iterator[Metric]:
    """Those of one moment; what is not known has no sample."""
    role = GaugeMetricFamily(
        "tula_high_availability_role", "1 for the role that the balancer has.", labels=["role"]
    )
    if facts.role is not None:
        for each in ("active", "standby"):
            role.add_metric([each], int(facts.role == each))
    sent = CounterMetricFamily("tula_flows_sent", "Packets that told other balancers of flows.")
    learned = CounterMetricFamily(
        "tula_flows_learned", "Packets of other balancers that flows were learned from."
    )
    for family, count in ((sent, facts.flows.sent), (learned, facts.flows.learned)):
        if count is not None:
            family.add_metric([], count)
    up = GaugeMetricFamily(
        "tula_peer_up", "1 while the daemon of that balancer answers.", labels=_PEER
    )
    configuration = GaugeMetricFamily(
        "tula_peer_configuration_equal",
        "1 while that balancer runs the same configuration as this one.",
        labels=_PEER,
    )
    overrides = GaugeMetricFamily(
        "tula_peer_overrides_equal",
        "1 while that balancer drains, disables and weighs the same.",
        labels=_PEER,
    )
    clock = GaugeMetricFamily(
        "tula_peer_clock_ahead_seconds", "By how much its clock is ahead of ours.", labels=_PEER
    )
    for peer in facts.peers:
        up.add_metric([peer.name], int(peer.alive))
        # A peer that is gone has neither: what it said last may long be otherwise.
        for gauge, equal in (
            (configuration, peer.configuration_equal),
            (overrides, peer.overrides_equal),
        ):
            if peer.alive and equal is not None:
                gauge.add_metric([peer.name], int(equal))
        if peer.alive and peer.clock is not None:
            clock.add_metric([peer.name], peer.clock)
    yield from (role, sent, learned, up, configuration, overrides, clock)
