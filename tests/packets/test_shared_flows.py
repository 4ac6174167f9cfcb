"""Balancers know each other's flows: whichever gets a packet next, it goes to the flow's backend.

::

    client-1 ── router ══ lan ══ lb1, lb2, (lb3), backend-1 …      (VIPs on lo)

The router spreads flows over the balancers by static routes; to take one away moves its flows, and
of three most of the others' too. Every wait is for connections that have sent something since, and
were answered: by what they sent the others know them. What comes in before them and how each part
works: tests/packets/test_sync_device.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.balancers import MANY, Balancers
from support.connections import Connections
from support.datagrams import Datagrams
from support.packets import FAMILIES, udp_socket, vip_of
from tula.lab import Cluster, Lab, pair, tcp_flows, three, wait_until
from tula.lab.clients import ask_all

pytestmark = pytest.mark.kernel

COUNT = 2000 if MANY else 200
FAR = 20 if os.environ.get("TULA_VM") else 60
"""Connections to backends in tunnels: a VM that is emulated takes its time."""


def all_kinds_of_changes(lbs: Balancers, opened: Connections) -> None:
    """A backend comes, goes down and up, weights change, another drains; after each one every
    flow sends something. None of them ends a connection."""
    for weights in (
        {"b1": 100, "b2": 100, "b3": 100},
        {"b1": 100, "b2": 100},
        {"b1": 100, "b2": 100, "b3": 100},
        {"b1": 30, "b2": 100, "b3": 60},
        {"b1": 0, "b2": 100, "b3": 60},
    ):
        lbs.apply(**weights)
        opened.wait_for_answers()


def survive(lbs: Balancers) -> tuple[Connections, Datagrams]:
    """Connections and flows of datagrams through changes, then the first balancer dies."""
    network = lbs.network
    first, *rest = network.lbs
    network.route(*(network.lbs if len(rest) > 1 else [first]))
    with (
        Connections(network.client, network.vips, 80, COUNT, 0.2) as opened,
        Datagrams(network.client, network.vips, 80, 400, 80) as probe,
    ):
        opened.wait_for_answers()
        all_kinds_of_changes(lbs, opened)
        network.route(*rest)
        opened.wait_for_answers()
    return opened, probe


def started(network: Cluster, folder: Path, **keys: Any) -> Balancers:
    """All of them serve with two backends of three."""
    lbs = Balancers(network, folder, **keys)
    lbs.serve()
    lbs.apply(b1=100, b2=100)
    return lbs


@pytest.mark.parametrize(
    ("balancers", "flows", "keys"),
    [
        (3, "moved", {}),
        (3, "all", {"scheduler": "rr"}),
        *(
            [
                (2, "moved", {}),
                (2, "all", {"scheduler": "rr"}),
                (3, "moved", {"affinity": "client"}),
                (3, "moved", {"ports": ["80-90"]}),
            ]
            if MANY
            else []
        ),
    ],
)
def test_one_balancer_dies_after_changes(
    lab: Lab, tmp_path: Path, balancers: int, flows: str, keys: dict[str, Any]
) -> None:
    network = three(lab) if balancers == 3 else pair(lab, backends=3)
    lbs = started(network, tmp_path, flows=flows, **keys)
    opened, probe = survive(lbs)
    assert opened.found.broken == 0, opened.found
    assert (probe.heard.moved, probe.heard.lost) == (0, 0), probe.heard


@pytest.mark.parametrize(
    "tunnel",
    [
        pytest.param("vxlan", marks=pytest.mark.link_kinds("vxlan")),
        pytest.param("ipip", marks=pytest.mark.link_kinds("sit", "ipip", "vxlan")),
    ],
)
def test_flows_to_backends_in_tunnels_survive_too(lab: Lab, tmp_path: Path, tunnel: str) -> None:
    lbs = Balancers(pair(lab, far=True), tmp_path, tunnel=tunnel)
    lbs.slots = 251  # the least: a VM that is emulated has other things to do
    network = lbs.network
    first, second = network.lbs
    lbs.serve()
    lbs.apply(b1=100, b2=0)
    lbs.prepare()
    network.route(first)
    with (
        Connections(network.client, network.vips, 80, FAR, 1.0) as opened,
        Datagrams(network.client, network.vips, 80, 20, 8) as probe,
    ):
        lbs.apply(b1=0, b2=100)
        opened.wait_for_answers()
        assert lbs.counted(second, "flows_learned") >= FAR
        network.route(second)
        opened.wait_for_answers()
    assert opened.found.broken == 0, opened.found
    assert (probe.heard.moved, probe.heard.lost) == (0, 0), probe.heard


@pytest.mark.parametrize("outer", [4, 6])
def test_large_packets_tell_in_fragments_or_leave_it_to_small_ones(
    lab: Lab, tmp_path: Path, outer: int
) -> None:
    """With the headers around it the clone is larger than the link takes: IPv4 has fragments."""
    lbs = Balancers(pair(lab), tmp_path, flows="all")
    lbs.outer = outer
    network = lbs.network
    first, second = network.lbs
    lbs.apply(b1=100, b2=100)
    network.route(first)
    for number, vip in enumerate(network.vips, 1):
        with udp_socket(network.client, 6 if ":" in vip else 4, 0) as sender:
            room = 1500 - (48 if ":" in vip else 28)
            for size, told in ((room, outer == 4), (room, outer == 4), (1, True)):
                sender.sendto(bytes(size), (vip, 80))
                wait_until(lambda n=number: lbs.counted(first, "flows_sent") >= n)
                if told:
                    wait_until(lambda n=number: lbs.counted(second, "flows_learned") >= n)
                else:
                    assert lbs.counted(second, "flows_learned") == number - 1


def test_flows_that_are_not_shared_break(lab: Lab, tmp_path: Path) -> None:
    """So that the tests above mean something."""
    lbs = started(pair(lab, backends=3), tmp_path, flows="none")
    network = lbs.network
    first, second = network.lbs
    network.route(first)
    with Connections(network.client, network.vips, 80, COUNT, 0.2) as opened:
        lbs.apply(b1=0, b2=100, b3=100)
        opened.wait_for_answers()
        network.route(second)
        opened.wait_for_answers()
    assert opened.found.broken > COUNT / 10, opened.found
    assert first.run(["ip", "link", "show", "tula-sync"], check=False).returncode != 0


def test_what_was_opened_just_before_the_death(lab: Lab, tmp_path: Path) -> None:
    lbs = started(pair(lab), tmp_path, flows="all", scheduler="rr")
    network = lbs.network
    first, second = network.lbs
    for family in FAMILIES:
        network.route(first)
        opened = tcp_flows(network.client, vip_of(network, family), 81, 100)
        network.route(second)
        names = {flow.source_port: flow.backend for flow in opened}
        assert ask_all(opened) == names
        assert set(names.values()) == {"backend-1", "backend-2"}


def test_who_comes_back_empty_is_told_all(lab: Lab, tmp_path: Path) -> None:
    lbs = started(pair(lab, backends=3), tmp_path)
    network = lbs.network
    first, second = network.lbs
    network.route(first)
    with Connections(network.client, network.vips, 80, COUNT, 0.2) as opened:
        lbs.apply(b1=0, b2=50, b3=100)
        opened.wait_for_answers()
        second.run(["nft", "flush", "ruleset"])
        second.run(["ip", "link", "del", "tula-sync"])
        lbs.apply(second)
        assert lbs.counted(second, "flows_learned") == 0
        lbs.share_again(first)
        opened.wait_for_answers()
        assert lbs.counted(second, "flows_learned") >= COUNT / 4
        network.route(second)
        opened.wait_for_answers()
    assert opened.found.broken == 0, opened.found


def test_traffic_goes_on_without_the_device(lab: Lab, tmp_path: Path) -> None:
    lbs = started(pair(lab, backends=3), tmp_path, flows="all")
    network = lbs.network
    network.route(network.lb)
    for broken in ("set", "tula-sync", "down"), ("del", "tula-sync"):
        with (
            Datagrams(network.client, network.vips, 80, 400, 40) as probe,
            Connections(network.client, network.vips, 80, 40, 0.1) as opened,
        ):
            network.lb.run(["ip", "link", *broken])
            # New flows, and flows that are no longer hot, are cloned to nowhere.
            for vip in network.vips:
                for flow in tcp_flows(network.client, vip, 81, 20):
                    flow.close()
            opened.wait_for_answers()
        assert (probe.heard.lost, probe.heard.moved) == (0, 0), probe.heard
        assert opened.found.broken == 0, opened.found
        lbs.apply(network.lb)
        shown = network.lb.run(["ip", "-d", "link", "show", "tula-sync"]).stdout
        assert "UP" in shown
