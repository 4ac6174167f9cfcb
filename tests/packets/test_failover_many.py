"""How long VIPs are silent when the balancer that has them is cut off, by their number and their
MAC address.

::

    client-1 ── router ══ lan ══ lb1, lb2 (VRRP), backend-1, -2
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from support.datagrams import Datagrams, serve_datagrams
from support.high_availability import UDP, Balancers
from support.lab_configurations import backends_of
from support.queues import queue_drops
from tula.lab import Lab, hold, many_vips, pair, wait_until

pytestmark = pytest.mark.kernel

SOAK = bool(os.environ.get("TULA_SOAK"))
GENEROUS = 10.0
"""Seconds, where the figure is not what is tested: the machine may have more to do."""


class Case(NamedTuple):
    """How many VIPs of each family, whose MAC, and how many seconds they may be silent."""

    ipv4: int
    ipv6: int
    mac: str
    silent: float


CASES = [Case(4, 4, "virtual", GENEROUS)]
if SOAK:
    CASES = [Case(500, 0, "own", 0.4), Case(500, 500, "own", 0.7), Case(500, 0, "virtual", 0.4)]


HOW = ("link down", "silent port") if SOAK else ("silent port",)
"""test_vrrp.py has the link that goes down."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.ipv4}+{case.ipv6} {case.mac}")
def test_all_vips_move_when_the_link_goes_down_or_the_port_is_silent(
    lab: Lab, tmp_path: Path, case: Case
) -> None:
    vips = many_vips(case.ipv4, case.ipv6)
    network = replace(pair(lab, vips=vips[:1]), vips=tuple(vips))
    for backend in network.backends:
        hold(backend, "10.9.100.0/22", "fd09::a:0/112")
        serve_datagrams(backend, UDP)
    dns = {
        "vip": vips,
        "protocol": "udp",
        "ports": [UDP],
        "forwarding": "l2",
        "backends": backends_of(*network.backends),
    }
    step = max(1, len(vips) // 50)
    probed = [*vips[::step], vips[-1]]
    rate = 100 * len(probed) if SOAK else 500
    vrrp = {"vrrp": {"id": 84, "mac": case.mac}}
    with Balancers(network, tmp_path, vrrp, {"dns": dns}) as balancers:
        for how in HOW:
            balancers.settle()
            active, standby = balancers.active, balancers.standby
            dropped = queue_drops()
            with Datagrams(network.client, probed, UDP, rate) as probe:
                if how == "link down":
                    active.set_cable("eth0", plugged=False)
                else:
                    active.set_silent("eth0")
                wait_until(lambda taker=standby: taker in balancers.holders(), 60, "the VIPs moved")
                if how == "link down":
                    active.set_cable("eth0", plugged=True)
                else:
                    active.set_silent("eth0", silent=False)
                balancers.settle()
            heard = probe.heard
            print(f"{case}, {how}: {heard}")
            if case.mac == "virtual" and how == "link down":
                # The switch does not know where that MAC is now, and floods: the standby forwards.
                assert heard.lost <= queue_drops() - dropped, heard
            assert heard.longest < case.silent, heard
