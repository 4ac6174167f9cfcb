"""Routers configured as docs/high-availability.md says spread flows over the balancers, and take
one that is the last resort only while they have no other.

::

    client-1 ── router (FRR or BIRD) ══ lan ══ lb1, lb2, lb3, backend-1, -2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.routers import start_bird, start_frr
from tula.lab import BALANCERS_AS, ROUTERS, Cluster, Lab, flows, serve_udp, three, wait_until

pytestmark = pytest.mark.kernel

# FRR has one session, for both families.
KINDS: Mapping[str, tuple[Callable[[Cluster], None], Mapping[str, int]]] = {
    "FRR": (start_frr, {"10.9.0.1": 65000}),
    "BIRD": (start_bird, ROUTERS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_router_by_the_page(lab: Lab, tmp_path: Path, kind: str) -> None:
    network = three(lab, backends=2)
    start, routers = KINDS[kind]
    start(network)
    for backend in network.backends:
        serve_udp(backend, [80])
    bgp = {"as": BALANCERS_AS, "routers": dict(routers), "bfd": "300ms"}
    path = write_config(
        tmp_path / "tula.yaml",
        {"web": service_of(network, protocol=["udp"])},
        load_balancers=network.balancers,
        high_availability={"bgp": bgp},
    )
    try:
        for lb in network.lbs:
            call_tula(lb, "apply", "-f", path)
        announced(network, "lb1", "lb2", "lb3")
        for vip in network.vips:
            answers = flows(network.client, vip, 80, 60, "udp")
            assert set(answers.values()) == {"backend-1", "backend-2"}
        for vip, family in zip(network.vips, ("-4", "-6"), strict=True):
            for verb, metric in (("add", "200"), ("del", "100")):
                route = ["blackhole", vip, "table", "84", "proto", "84", "metric", metric]
                network.lbs[0].run(["ip", family, "route", verb, *route])
        announced(network, "lb2", "lb3")
        for lb in network.lbs[1:]:
            call_tula(lb, "clear")
        announced(network, "lb1")
    finally:
        for lb in network.lbs:
            call_tula(lb, "clear", check=False)
    announced(network)


def announced(network: Cluster, *names: str) -> None:
    for vip in network.vips:
        by = partial(network.routes, vip)
        wait_until(lambda by=by: by() == list(names), 60, f"{vip} by {names}")
