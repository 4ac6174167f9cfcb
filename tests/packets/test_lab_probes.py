"""What measures a failover can tell loss and breakage: without any, with a silent port, with a
reset.

::

    client-1 ── router ══ lan ══ lb1 (forwards as a router does), backend-1, -2
"""

from __future__ import annotations

import time

import pytest

from support.connections import Connections, serve_connections
from support.datagrams import Datagrams, serve_datagrams
from tula.lab import Lab, hold, many_vips, pair

pytestmark = pytest.mark.kernel


def test_datagrams_and_connections_tell_what_was_lost(lab: Lab) -> None:
    network = pair(lab, vips=())
    vips = many_vips(2, 2)
    one, two = network.backends
    for number, backend in enumerate(network.backends):
        hold(backend, "10.9.100.0/22", "fd09::a:0/112")
        serve_datagrams(backend, 53)
        serve_connections(backend, 80)
        for vip in (vips[number], vips[2 + number]):
            via = backend.addresses("eth0")[":" in vip]
            network.gateway.run(["ip", "route", "add", vip, "via", via])
    with (
        Datagrams(network.client, vips, 53, rate=1000, flows=8) as all_well,
        Connections(network.client, vips, 80, count=200, period=0.1) as opened,
    ):
        opened.wait_for_answers()
        opened.wait_for_answers()
    assert (all_well.heard.lost, all_well.heard.longest) == (0, 0.0), all_well.heard
    names = {vips[n]: [("backend-1", "backend-2")[n % 2]] for n in range(4)}
    assert all_well.heard.backends == names
    assert opened.found.broken == 0, opened.found
    assert opened.found.answers >= 400
    assert opened.found.backends == {"backend-1": 100, "backend-2": 100}

    with (
        Datagrams(network.client, vips, 53, rate=1000) as silent,
        Connections(network.client, vips, 80, count=200, period=0.1) as broken,
    ):
        one.set_silent("eth0")
        time.sleep(0.3)
        one.set_silent("eth0", silent=False)
        broken.wait_for_answers()
        # The first VIP's connections (50 of IPv4) reach another server, which does not know them.
        via = two.addresses("eth0")[0]
        network.gateway.run(["ip", "route", "replace", vips[0], "via", via])
        broken.wait_for_answers()
    heard, found = silent.heard, broken.found
    assert heard.lost > 0, heard
    assert all(heard.silence[vip] > 0.25 for vip in (vips[0], vips[2])), heard
    assert all(heard.silence[vip] == 0 for vip in (vips[1], vips[3])), heard
    assert (found.reset, found.closed, found.silent, found.moved) == (50, 0, 0, 0), found
    assert heard.backends[vips[0]] == ["backend-1", "backend-2"]
    assert heard.moved == 1
