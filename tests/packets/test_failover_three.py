"""Three balancers by BGP: one of them dies, and the router spreads its flows over the others; no
connection breaks.

::

    client-1 ── router (BGP, BFD, ECMP) ══ lan ══ lb1, lb2, lb3, backend-1 … -3
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.connections import Connections
from support.datagrams import Datagrams
from support.high_availability import TCP, UDP, Balancers
from tula.lab import BALANCERS_AS, ROUTERS, BgpRouter, Lab, three, wait_until

pytestmark = pytest.mark.kernel

SOAK = bool(os.environ.get("TULA_SOAK"))
COUNT = 2000 if SOAK else 200
HOW = ["silent port", "power off"] if SOAK else ["silent port"]
"""The demo has a balancer lose its power."""
SILENT = 0.4 if SOAK else 10.0
"""Seconds: a hold time is 9, so BFD must have noticed. The figure is for a machine at rest."""


def test_one_of_three_is_cut_off_or_loses_its_power(lab: Lab, tmp_path: Path) -> None:
    network = three(lab)
    BgpRouter(network).start()
    bgp = {"bgp": {"as": BALANCERS_AS, "routers": ROUTERS, "bfd": "300ms"}}
    balancers = Balancers(network, tmp_path, bgp)
    balancers.serve()
    client, vips = network.client, network.vips
    with balancers:
        dying = network.lbs[1]
        others = [lb.name for lb in network.lbs if lb is not dying]
        for how in HOW:
            with (
                Connections(client, vips, TCP, COUNT) as opened,
                Datagrams(client, vips, UDP, 2000, flows=64) as probe,
            ):
                if how == "silent port":
                    dying.set_silent("eth0")
                else:
                    dying.power_off()
                for vip in vips:
                    wait_until(lambda vip=vip: network.routes(vip) == others, 60, "two routes")
                opened.wait_for_answers()
                if how == "silent port":
                    dying.set_silent("eth0", silent=False)
                    balancers.wait_until_serving()
                    opened.wait_for_answers()
            print(f"{how}: {probe.heard}; {opened.found}")
            assert opened.found.broken == 0, opened.found
            assert probe.heard.longest < SILENT, probe.heard
