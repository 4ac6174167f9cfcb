"""Balancers know each other's flows: whichever gets a packet next, it goes to the flow's backend.

::

    client-1 ── router ══ lan ══ lb1, lb2, lb3, backend-1 … -3      (VIPs on lo)

The router spreads flows over the balancers by static routes (ECMP); to take one away moves most
flows to another. Every wait is for connections that have been answered since: what they sent is
what the others know them by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.connections import Connections, serve_connections
from support.datagrams import Datagrams, serve_datagrams
from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from tula.lab import Cluster, Host, Lab, three

pytestmark = pytest.mark.kernel

BGP = {"as": 65001, "routers": {"10.9.0.1": 65000}}


class Balancers:
    """Several balancers with one configuration."""

    def __init__(self, network: Cluster, folder: Path, **keys: Any) -> None:
        self.network = network
        self.folder = folder
        self.keys = keys
        self.backends: dict[str, Any] = {}
        for backend in network.backends:
            serve_connections(backend, 80)
            serve_datagrams(backend, 80)

    def apply(self, backends: dict[str, Any] | None = None, *lbs: Host) -> None:
        """Brings them, or some of them, to the configuration with these backends."""
        self.backends = self.backends if backends is None else backends
        service = service_of(
            self.network,
            protocol=["tcp", "udp"],
            announce=False,
            backends=self.backends,
            **{k: v for k, v in self.keys.items() if k in ("scheduler", "affinity")},
        )
        file = write_config(
            self.folder / "tula.yaml",
            {"web": service},
            load_balancers=self.network.balancers,
            high_availability={"bgp": BGP, "flows": self.keys.get("flows", "moved")},
        )
        for lb in lbs or self.network.lbs:
            call_tula(lb, "apply", "-f", str(file))

    def counted(self, lb: Host, counter: str) -> int:
        listed = lb.run(["nft", "list", "counter", "netdev", "tula", counter]).stdout
        return int(listed.split("packets ")[1].split()[0])


def test_x(lab: Lab, tmp_path: Path) -> None:
    network = three(lab)
    lbs = Balancers(network, tmp_path)
    one, two, third = network.backends
    lbs.apply(backends_of(one, two))
    network.route(*network.lbs)
    with (
        Connections(network.client, network.vips, 80, 300, 0.2) as opened,
        Datagrams(network.client, network.vips, 80, 500, 100) as probe,
    ):
        opened.wait_for_answers()
        lbs.apply(backends_of(two, third) | backends_of(one, weight=0))
        opened.wait_for_answers()
        for lb in network.lbs:
            print(lb.name, [lbs.counted(lb, f"flows_{n}") for n in ("sent", "learned", "unknown")])
            print(call_tula(lb, "status").stdout)
        network.route(*network.lbs[1:])
        opened.wait_for_answers()
    print(opened.found, probe.heard)
    assert opened.found.broken == 0, opened.found
    assert probe.heard.moved == probe.heard.lost == 0, probe.heard
