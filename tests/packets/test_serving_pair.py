"""Two machines that balance by VRRP, and serve, for themselves and for each other: no loop.

::

    client-1 ── router ══ lan ══ lb1, lb2   (VIPs on lo of both, and on eth0 of the active one)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from support.high_availability import TCP, UDP, Balancers
from support.in_process import call_tula
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import (
    Capture,
    Host,
    Lab,
    TcpFlow,
    ask_all,
    flows,
    pair,
    serve_tcp,
    serve_udp,
    tcp_flows,
    wait_until,
)

pytestmark = pytest.mark.kernel


ALL = [f"{protocol} by IPv{family}" for family in FAMILIES for protocol in ("tcp", "udp")]


class ServingPair(Balancers):
    """The VIPs are on lo of both, too."""

    def holders(self) -> list[Host]:
        vips = set(self.cluster.vips)
        return [lb for lb in self.cluster.lbs if lb.is_on and vips <= set(lb.addresses("eth0"))]

    def wait_until_all_is_up(self) -> None:
        """Both see both up, and know the other's MAC address."""

        def up(daemon: Running) -> bool:
            states = daemon.states()
            return states["web/lb1"] == states["web/lb2"] == "up"

        for host in self.cluster.lbs:
            wait_until(lambda of=self.daemons[host.name]: up(of), 60, "both up")
            wait_until(lambda of=host: self._knows_peer(of), 60, "the peer's MAC address")

    def _knows_peer(self, host: Host) -> bool:
        listed = host.run(["nft", "list", "chain", "netdev", "tula", "in.eth0"]).stdout
        return "jump forwarded" in listed

    def prepare(self, host: Host, *files: object) -> None:
        """What its administrator does."""
        call_tula(host, "backend", "join", *(str(word) for word in files))
        serve_tcp(host, [TCP], self.cluster.vips)
        serve_udp(host, [UDP], self.cluster.vips)


@pytest.fixture(scope="module")
def balancers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServingPair]:
    with Lab() as lab:
        network = pair(lab, backends=0)
        backends = {
            host.name: {"address": [f"10.9.0.{n}", f"fd09::{n}"]}
            for n, host in enumerate(network.lbs, 2)
        }
        common = {"vip": list(network.vips), "forwarding": "l2", "backends": backends}
        tcp = {"type": "tcp", "interval": "200ms", "timeout": "1s", "rise": 1, "fall": 2}
        services = {
            "web": {**common, "ports": [TCP], "health": tcp},
            "dns": {**common, "protocol": "udp", "ports": [UDP], "scheduler": "rr"},
        }
        made = ServingPair(network, tmp_path_factory.mktemp("pair"), {"vrrp": {"id": 84}}, services)
        for host in network.lbs:
            made.prepare(host, "-f", made.write(host))
        with made:
            made.wait_until_all_is_up()
            yield made


def ask(flow: TcpFlow) -> str:
    """Who answers over an open connection."""
    (name,) = ask_all([flow], 30.0).values()
    return name


def served_by(balancers: ServingPair, loss: bool = False) -> dict[str, set[str]]:
    """Who answers, by protocol and family."""
    client = balancers.cluster.client
    return {
        f"{protocol} by IPv{family}": set(
            flows(
                client, vip_of(balancers.cluster, family), port, 40, protocol, allow_loss=loss
            ).values()
        )
        for family in FAMILIES
        for protocol, port in (("tcp", TCP), ("udp", UDP))
    }


def of(*names: str) -> dict[str, set[str]]:
    """The answer of ``served_by`` where all of these serve."""
    return {kind: set(names) for kind in ALL}


def of_clients(balancers: ServingPair, capture: Capture, outgoing: bool) -> list[bytes]:
    """The frames with a client's packet for a VIP: not those of health checks."""
    network = balancers.cluster
    vips = {ip_address(vip).packed for vip in network.vips}
    own = {ip_address(text).packed for lb in network.lbs for text in lb.addresses("eth0")}
    places = {b"\x08\x00": (26, 30, 34), b"\x86\xdd": (22, 38, 54)}
    found = []
    for frame in capture.frames(outgoing=outgoing):
        if frame[12:14] in places:
            source, destination, end = places[frame[12:14]]
            if frame[destination:end] in vips and frame[source:destination] not in own:
                found.append(frame)
    return found


def test_clients_are_served_by_both_and_nothing_goes_around(balancers: ServingPair) -> None:
    active, standby = balancers.active, balancers.standby
    with Capture(active) as at_active, Capture(standby) as at_standby:
        assert served_by(balancers) == of("lb1", "lb2")
        wait_until(
            lambda: (
                len(of_clients(balancers, at_active, True))
                == len(of_clients(balancers, at_standby, False))
            ),
            what="what one has forwarded has arrived, each once",
        )
    assert len(of_clients(balancers, at_active, True)) > 100
    assert not of_clients(balancers, at_standby, True), "nothing is balanced again"
    router = balancers.cluster.gateway.mac("eth0")
    macs = {frame[6:12].hex(":") for frame in of_clients(balancers, at_active, False)}
    assert macs == {router}, "nothing has come back"


def test_the_doctor_finds_nothing(balancers: ServingPair) -> None:
    for host in balancers.cluster.lbs:
        done = call_tula(host, "doctor", "--json", check=False)
        found = json.loads(done.stdout)["findings"]
        # Nobody exchanged tokens here.
        assert {f["id"] for f in found if f["severity"] != "note"} <= {"peer-not-added"}


def test_established_connections_go_on_without_the_daemons_and_after_a_flush(
    balancers: ServingPair,
) -> None:
    active = balancers.active
    opened = [
        flow
        for vip in balancers.cluster.vips
        for flow in tcp_flows(balancers.cluster.client, vip, TCP, range(41000, 41020))
    ]
    names = {id(flow): ask(flow) for flow in opened}
    assert set(names.values()) == {"lb1", "lb2"}
    active.run(["nft", "flush", "ruleset"])
    assert {id(flow): ask(flow) for flow in opened} == names
    for daemon in balancers.daemons.values():
        daemon.kill()
    assert {id(flow): ask(flow) for flow in opened} == names
    assert served_by(balancers) == of("lb1", "lb2")
    balancers.start()
    balancers.wait_until_all_is_up()
    assert {id(flow): ask(flow) for flow in opened} == names
    for flow in opened:
        flow.close()


def test_the_other_one_takes_over_and_its_own_connections_go_on(balancers: ServingPair) -> None:
    active, standby = balancers.active, balancers.standby
    opened = tcp_flows(balancers.cluster.client, balancers.cluster.vip4, TCP, range(42000, 42040))
    kept = [flow for flow in opened if ask(flow) == standby.name]
    assert 0 < len(kept) < len(opened)
    active.power_off()
    wait_until(lambda: balancers.holders() == [standby], what="the VIPs at the other one")
    assert {ask(flow) for flow in kept} == {standby.name}
    wait_until(
        lambda: served_by(balancers, loss=True) == of(standby.name),
        60,
        "all served by the one that is left",
    )
    balancers.cluster.lab.power_on(active)
    balancers.prepare(active)
    balancers.daemons[active.name].start()
    balancers.wait_until_all_is_up()
    assert {ask(flow) for flow in kept} == {standby.name}
    assert served_by(balancers) == of("lb1", "lb2")
