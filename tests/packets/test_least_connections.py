"""least-connections: new connections go to who has few, until all are even.

::

    client-1             lb, with the daemon          backend-1 … 3
        │                        │                        │   (VIPs on lo)
    ════╧════════════════════════╧════════════════════════╧════  lan
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import Lab, TcpFlow, ask_all, flat, serve_tcp, tcp_flows, wait_until

pytestmark = pytest.mark.kernel


def test_new_connections_go_to_who_has_few_until_all_are_even(lab: Lab, tmp_path: Path) -> None:
    """A service of each family, side by side: the daemon counts every other second."""
    network = flat(lab, backends=3)
    for backend in network.backends:
        serve_tcp(backend, [80])
    services = {
        f"web{family}": service_of(
            network, vip=vip_of(network, family), scheduler="least-connections"
        )
        for family in FAMILIES
    }
    path = write_config(tmp_path / "tula.yaml", services)
    full, *empty = [[f"{service}/backend-{n}" for service in services] for n in (1, 2, 3)]
    opened: dict[int, list[TcpFlow]] = {family: [] for family in FAMILIES}

    def open_more(count: int) -> None:
        for family, flows in opened.items():
            first = 21000 + len(flows)
            ports = range(first, first + count)
            flows += tcp_flows(network.client, vip_of(network, family), 80, ports)

    with Running(network.lb, path) as daemon:
        for name in itertools.chain(*empty):
            call_tula(network.lb, "drain", name)
        open_more(50)
        assert {flow.backend for flows in opened.values() for flow in flows} == {"backend-1"}
        for name in itertools.chain(*empty):
            call_tula(network.lb, "undrain", name)

        def counted(number: int) -> None:
            """Until the daemon has acted on a count of so many: status counts by itself before."""
            name = "tula_backend_connections"
            wait_until(lambda: daemon.figure(name) == number, 60, "the count")

        counted(100)
        for _ in range(12):  # each time that many a count, until those before are in it
            open_more(10)
            counted(sum(map(len, opened.values())))
        assert {daemon.backends()[name]["connections"] for name in full} != {None}
        assert not daemon.status()["daemon"]["problems"]
        for family, flows in opened.items():
            held = Counter(flow.backend for flow in flows)
            assert held["backend-1"] < 70, f"50 and few of 120: {held}"
            assert min(held["backend-2"], held["backend-3"]) > 40, held
            chain = f"service{family}.web{family}"
            rules = network.lb.run(["nft", "-j", "list", "chain", "netdev", "tula", chain])
            assert re.search(r"wrr_\d_1021", rules.stdout)
            assert ask_all(flows) == {flow.source_port: flow.backend for flow in flows}
