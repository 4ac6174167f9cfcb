"""BGP sessions, as families of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from tula.model.bgp import BgpSessionState

_ROUTER = ["router"]


def bgp_metrics(sessions: Sequence[BgpSessionState]) -> Iterator[Metric]:
    """Those of one moment; without BGP there are no samples."""
    up = GaugeMetricFamily(
        "tula_bgp_session_up", "1 while the router hears of VIPs by BGP.", labels=_ROUTER
    )
    bfd = GaugeMetricFamily("tula_bgp_bfd_up", "1 while BFD with the router is up.", labels=_ROUTER)
    routes = GaugeMetricFamily(
        "tula_bgp_routes", "VIPs that the router was told of.", labels=_ROUTER
    )
    for session in sessions:
        labels = [str(session.router)]
        up.add_metric(labels, int(session.established))
        bfd.add_metric(labels, int(session.bfd == "Up"))
        routes.add_metric(labels, session.routes)
    yield from (up, bfd, routes)
