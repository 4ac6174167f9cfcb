"""A pair by VRRP: whatever dies, nothing is lost; where a cable is cut, little is, and no
connection breaks.

::

    client-1 ── router ══ lan ══ lb1, lb2 (VRRP), backend-1, -2

One lab for all; each test leaves one balancer with the VIPs and the other ready to take them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, in4_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from support.advertiser import advert
from support.connections import Connections
from support.datagrams import Datagrams
from support.high_availability import TCP, UDP, Balancers
from support.queues import queue_drops
from tula.kernel.announce import advertisement, arp_announcement
from tula.lab import Host, Lab, pair, send_frame, wait_until

pytestmark = pytest.mark.kernel

SOAK = bool(os.environ.get("TULA_SOAK"))
RATE = 2000
LEAST = 10_000 if SOAK else 2000
"""How many datagrams are sent, at least, while something dies."""
COUNT = 2000 if SOAK else 200
"""How many connections."""
FLIPS = 960 if SOAK else 48
"""How often the VIPs' MAC changes at the router, 16 times a second."""
SILENT = 0.4 if SOAK else 10.0
"""Seconds that a VIP may be silent after a cable is cut: the figure is for a machine at rest."""


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancers]:
    with Lab() as lab:
        network = pair(lab)
        made = Balancers(network, tmp_path_factory.mktemp("pair"), {"vrrp": {"id": 84}})
        made.serve()
        with made:
            yield made


@pytest.fixture(autouse=True)
def one_holder(balancers: Balancers) -> Iterator[None]:
    """Begins and ends with one holder of the VIPs, and keepalived on both."""
    balancers.settle()
    yield
    balancers.settle()


class Sending:
    """Datagrams until enough have been sent; then how many were lost, but for those that the
    machine itself dropped."""

    def __init__(self, balancers: Balancers) -> None:
        self._probe = Datagrams(
            balancers.cluster.client, balancers.cluster.vips, UDP, RATE, flows=64
        )

    def __enter__(self) -> None:
        self._dropped = queue_drops()
        self._probe.__enter__()
        self._began = time.monotonic()

    def __exit__(self, *what: object) -> None:
        if what[0] is None:
            time.sleep(max(0.0, self._began + LEAST / RATE - time.monotonic()))
        self._probe.__exit__(*what)  # type: ignore[arg-type]
        if what[0] is None:
            heard = self._probe.heard
            # A busy machine sends at a lower rate.
            assert heard.sent >= (LEAST if SOAK else LEAST // 4)
            assert heard.lost <= queue_drops() - self._dropped, heard


def test_kill_9_of_keepalived_where_the_vips_are(balancers: Balancers) -> None:
    active, standby = balancers.active, balancers.standby
    with Sending(balancers):
        assert active.kill("keepalived") > 0
        wait_until(lambda: standby in balancers.holders(), what="the standby has the VIPs")
        wait_until(lambda: active.processes("keepalived"), what="keepalived is back")
        assert len(balancers.settle()) == 1


def test_kill_9_of_keepalived_where_they_are_not(balancers: Balancers) -> None:
    active, standby = balancers.active, balancers.standby
    with Sending(balancers):
        assert standby.kill("keepalived") > 0
        wait_until(lambda: standby.processes("keepalived"), what="keepalived is back")
    assert balancers.settle() == [active], "nothing moved"


def test_the_daemons_end_moves_nothing_and_a_failover_needs_none(balancers: Balancers) -> None:
    active, standby = balancers.active, balancers.standby
    engines = {lb.name: lb.processes("keepalived") for lb in balancers.cluster.lbs}
    with Sending(balancers):
        balancers.daemons[active.name].kill()
        balancers.daemons[standby.name].stop()
    assert balancers.holders() == [active]
    assert {lb.name: lb.processes("keepalived") for lb in balancers.cluster.lbs} == engines
    with Sending(balancers):
        active.kill("keepalived")
        wait_until(lambda: standby in balancers.holders(), what="the standby has the VIPs")
        balancers.start()
    assert balancers.settle() == [standby]
    assert standby.processes("keepalived") == engines[standby.name], "found again, left alone"


def test_an_engine_whose_pid_file_is_lost_is_found(balancers: Balancers) -> None:
    """Another one beside it would be nobody's, and would hold the VIPs after tula clear."""
    active = balancers.active
    file = Path(active.environment()["TULA_RUN_DIR"], "keepalived/keepalived.pid")
    engine = int(wait_until(file.read_text, what="its pid file"))
    with Sending(balancers):
        file.unlink()
        wait_until(lambda: file.exists() and file.read_text().strip(), what="its pid file")
        wait_until(lambda: len(active.processes("keepalived")) == 2, what="its two processes")
    assert int(file.read_text()) == engine in active.processes("keepalived")


def test_standby_and_active_again(balancers: Balancers) -> None:
    active, standby = balancers.active, balancers.standby
    with Sending(balancers):
        active.tula("standby")
        wait_until(lambda: balancers.holders() == [standby], what="the VIPs at the other one")
        active.tula("active")
    assert balancers.settle() == [standby], "equal again: nothing moves back"


def test_reboot_of_the_standby(balancers: Balancers) -> None:
    active, standby = balancers.active, balancers.standby
    with Sending(balancers):
        standby.power_off()
        balancers.cluster.lab.power_on(standby)
        balancers.daemons[standby.name].start()
        wait_until(lambda: standby.processes("keepalived"), what="keepalived is back")
    assert balancers.settle() == [active]


HOW = ["link down", "silent port", "power off"] if SOAK else ["silent port"]


@pytest.mark.parametrize("how", HOW)
def test_the_active_one_is_cut_off(balancers: Balancers, how: str) -> None:
    """Its datagrams are lost until the other one has noticed; no connection breaks."""
    active, standby = balancers.active, balancers.standby
    client, vips = balancers.cluster.client, balancers.cluster.vips
    with (
        Connections(client, vips, TCP, COUNT) as opened,
        Datagrams(client, vips, UDP, RATE, flows=64) as probe,
    ):
        if how == "link down":
            active.set_cable("eth0", plugged=False)
        elif how == "silent port":
            active.set_silent("eth0")
        else:
            active.power_off()
        wait_until(lambda: standby in balancers.holders(), what="the standby has the VIPs")
        opened.wait_for_answers()
        if how == "link down":
            active.set_cable("eth0", plugged=True)
        elif how == "silent port":
            active.set_silent("eth0", silent=False)
        else:
            balancers.cluster.lab.power_on(active)
            balancers.daemons[active.name].start()
        balancers.settle()
        opened.wait_for_answers()
    print(f"{how}: {probe.heard}; {opened.found}")
    assert opened.found.broken == 0, opened.found
    assert 0 < probe.heard.longest < SILENT, probe.heard


def announce(lb: Host, vips: tuple[str, ...]) -> None:
    """What a balancer tells the network when it takes VIPs over."""
    mac = bytes.fromhex(lb.mac().replace(":", ""))
    for vip in vips:
        address = IPv6Address(vip) if ":" in vip else IPv4Address(vip)
        made = (
            arp_announcement(address, mac)
            if isinstance(address, IPv4Address)
            else advertisement(address, mac)
        )
        send_frame(lb, "eth0", made)


def test_both_have_the_vips_and_the_router_cannot_decide(balancers: Balancers) -> None:
    """They do not hear each other: both take the VIPs. Then the router's neighbour entry changes
    16 times a second, so that packets of one connection go through both."""
    lbs, vips = balancers.cluster.lbs, balancers.cluster.vips
    deaf = "table inet deaf { chain in { type filter hook input priority 0; %s drop; }; }"
    for lb in lbs:
        lb.run(["nft", "-f", "-"], input=deaf % "meta l4proto vrrp")
    wait_until(lambda: len(balancers.holders()) == 2, what="both have the VIPs")
    before = [lb.counters() for lb in lbs]
    with Connections(
        balancers.cluster.client, vips, TCP, COUNT, period=0.5 if SOAK else 0.1
    ) as opened:
        for lb in itertools.islice(itertools.cycle(lbs), FLIPS):
            announce(lb, vips)
            time.sleep(1 / 16)
        opened.wait_for_answers()
    assert opened.found.broken == 0, opened.found
    for lb, then in zip(lbs, before, strict=True):
        assert (lb.counters() - then).rx_packets > COUNT, f"{lb.name} got its part"
    for lb in lbs:
        lb.run(["nft", "delete", "table", "inet", "deaf"])


@pytest.mark.parametrize(
    ("source", "hops", "moves"),
    [
        ("backend", 255, False),  # a stranger in the LAN
        ("peer", 254, False),  # somebody elsewhere, whose packet a router has passed on
        ("peer", 255, True),  # who may take any address in the LAN; and that these adverts are good
    ],
)
def test_adverts_of_others(balancers: Balancers, source: str, hops: int, moves: bool) -> None:
    active, standby, stranger = balancers.active, balancers.standby, balancers.cluster.backends[0]
    of = balancers.cluster.balancers
    to = of[active.name]
    packet = forged(of[standby.name] if source == "peer" else "10.9.0.11", to, hops)
    frame = bytes(Ether(src=stranger.mac(), dst=active.mac(), type=0x0800) / packet)
    left, end = False, time.monotonic() + (20.0 if moves else 1.5)
    while time.monotonic() < end and not left:
        send_frame(stranger, "eth0", frame)
        time.sleep(0.02)
        left = active not in balancers.holders()
    assert left == moves


def forged(source: str, to: str, hops: int) -> IP:
    """An advert of the highest priority, with the address that adverts name here."""
    body = bytearray(advert(priority=255))
    address = IP(src=source, dst=to, ttl=hops, proto=112)
    body[6:8] = in4_chksum(112, address, bytes(body)).to_bytes(2)
    return address / Raw(bytes(body))
