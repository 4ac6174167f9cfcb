"""What tells of flows, and what is learned from it: clones by hand, from a peer and from others.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1, -2, -3
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from support.balancers import Balancers
from support.packets import FAMILIES, address_of, udp_socket, vip_of
from tula.dataplane.nft.shared_flows import VNI, shared_mac
from tula.lab import Capture, Host, Lab, pair, wait_until
from tula.model.config import Protocol
from tula.model.flow import Flow, FlowEntry

pytestmark = pytest.mark.kernel

PORT = 4790


@dataclass
class Site:
    """A pair; lb2 is told, by lb1 or by others."""

    lbs: Balancers

    @property
    def told(self) -> Host:
        return self.lbs.network.lbs[1]

    def key(self, name: str) -> str:
        """``Backend.key``."""
        applied = self.lbs.of["lb2"].balancer.applied
        assert applied is not None
        (service,) = applied.plan.state.services
        return next(backend.key for backend in service.backends if backend.name == name)

    def packet(self, family: int, port: int, layer: Any) -> Any:
        network = self.lbs.network
        header = IP if family == 4 else IPv6
        ends = {"src": address_of(network.client, family), "dst": vip_of(network, family)}
        return header(**ends) / layer(sport=port, dport=80)

    def tell(
        self, by: Host, name: str, packet: Any, service: str = "web", address: str = ""
    ) -> None:
        """One clone from a host, as a flow of this backend's; by another ``address`` of its."""
        mac = shared_mac(service, self.key(name)).to_bytes(6, "big").hex(":")
        frame = Ether(src=mac, dst=self.told.mac()) / packet
        clone = bytes(VXLAN(vni=VNI, flags="Instance") / frame)
        with udp_socket(by, 4, 0, address) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
            sender.sendto(clone, (address_of(self.told, 4), PORT))

    def tell_and_wait(self, flags: str, packet: Any) -> None:
        """By lb1, for backend-1, with these TCP flags; until it is learned."""
        learned = self.lbs.counted(self.told, "flows_learned")
        packet[TCP].flags = flags
        self.tell(self.lbs.network.lb, "backend-1", packet)
        wait_until(lambda: self.lbs.counted(self.told, "flows_learned") == learned + 1)

    def connections(self) -> int:
        """How many lb2 holds as open."""
        here = self.lbs.of["lb2"].balancer
        assert here.applied is not None
        with self.told.enter():
            counted = here._path.connections(here.applied.receipt.memory, 5.0)
        assert counted is not None
        return sum(counted.values())

    def held(self, family: int, port: int, protocol: Protocol) -> FlowEntry | None:
        """What lb2 holds for a flow of the client's."""
        network, here = self.lbs.network, self.lbs.of["lb2"].balancer
        assert here.applied is not None
        client, vip = address_of(network.client, family), vip_of(network, family)
        flow = Flow(ip_address(client), port, ip_address(vip), 80, protocol)
        with self.told.enter():
            return here._path.look_up(flow, here.applied.receipt.memory)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        lbs = Balancers(pair(lab, backends=3), tmp_path_factory.mktemp("pair"))
        lbs.serve()
        lbs.apply(b1=100, b2=100, b3=100)
        yield Site(lbs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clone_of_a_peer_makes_an_entry(site: Site, family: int) -> None:
    peer = site.lbs.network.lb
    for name in ("backend-1", "backend-2"):  # an entry that is there is replaced
        entry = FlowEntry("web", site.key(name))
        site.tell(peer, name, site.packet(family, 1001, UDP) / Raw(b"x"))
        wait_until(lambda e=entry: site.held(family, 1001, Protocol.UDP) == e)
        for flags in ("A", "S"):
            ack = site.packet(family, 1002, TCP)
            ack[TCP].flags = flags
            site.tell(peer, name, ack)
            wait_until(lambda e=entry: site.held(family, 1002, Protocol.TCP) == e)


@pytest.mark.parametrize(("family", "end"), [(4, "FA"), (6, "R")])
def test_the_end_of_a_connection_is_learned_too(site: Site, family: int, end: str) -> None:
    packet, entry = site.packet(family, 1003, TCP), FlowEntry("web", site.key("backend-1"))
    site.tell_and_wait("R", packet)
    others = site.connections()
    for flags, opened in (("S", 1), ("A", 1), (end, 0), ("A", 0), ("S", 1), (end, 0)):
        site.tell_and_wait(flags, packet)
        assert site.held(family, 1003, Protocol.TCP) == entry, "its last packets follow it"
        assert site.connections() == others + opened, flags


def test_what_others_send_is_not_taken(site: Site) -> None:
    """A backend in the same network, a client behind the router: from addresses of their own."""
    network = site.lbs.network
    before = [site.lbs.counted(site.told, f"flows_{what}") for what in ("learned", "unknown")]
    for stranger in (network.backends[0], network.client):
        for family in FAMILIES:
            site.tell(stranger, "backend-1", site.packet(family, 1005, UDP))
            site.tell(stranger, "backend-1", site.packet(family, 1006, TCP))
    # By a peer's address: who is beyond a router shows it by the hops.
    forged = address_of(network.lb, 4)
    network.client.add_address("lo", f"{forged}/32")
    site.tell(network.client, "backend-1", site.packet(4, 1005, UDP), address=forged)
    site.tell(network.client, "backend-1", site.packet(4, 1006, TCP), address=forged)
    listed = ["nft", "list", "chain", "inet", "tula_sync", "input"]
    wait_until(lambda: "packets 10 " in site.told.run(listed).stdout)
    for family in FAMILIES:
        assert site.held(family, 1005, Protocol.UDP) is None
        assert site.held(family, 1006, Protocol.TCP) is None
    after = [site.lbs.counted(site.told, f"flows_{what}") for what in ("learned", "unknown")]
    assert after == before


def test_what_is_not_known_here_is_counted_and_goes_nowhere(site: Site) -> None:
    peer = site.lbs.network.lb
    before = site.lbs.counted(site.told, "flows_unknown")
    with Capture(site.told) as seen:
        site.tell(peer, "backend-1", site.packet(4, 1007, UDP) / Raw(b"x"), service="other")
        wait_until(lambda: site.lbs.counted(site.told, "flows_unknown") == before + 1)
        # The clone of a flow that is learned is not forwarded either, nor answered.
        site.tell(peer, "backend-1", site.packet(4, 1008, UDP) / Raw(b"x"))
        wait_until(lambda: site.held(4, 1008, Protocol.UDP) is not None)
        sent = [Ether(frame) for frame in seen.frames(outgoing=True)]
    client, vip = address_of(site.lbs.network.client, 4), vip_of(site.lbs.network, 4)
    assert not [f for f in sent if f.haslayer(IP) and {f[IP].src, f[IP].dst} & {client, vip}]
    assert site.held(4, 1007, Protocol.UDP) is None


def test_clear_takes_the_device_and_the_table(site: Site) -> None:
    told = site.told
    site.lbs.of["lb2"].clear()
    assert told.run(["nft", "list", "ruleset"]).stdout == ""
    assert told.run(["ip", "link", "show", "tula-sync"], check=False).returncode != 0
    site.lbs.apply(told)
