"""What is no service's stays untouched, and no frame is forwarded that was not for this host.

::

    client-1                lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan

The frames that must not pass are followed by one that must: when it is there, so would they be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, Seen, Watch, address_of, ip_to, vip_of, watching
from tula.lab import (
    Capture,
    Host,
    Lab,
    Network,
    flat,
    flows,
    send_frame,
    serve_tcp,
    serve_udp,
    tcp_ask,
    udp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel

MARKED = """
table inet foreign {
  counter seen { }
  counter marked { }
  chain input { type filter hook input priority -300;
    meta l4proto { tcp, udp, icmp, icmpv6 } counter name seen
    meta mark != 0 counter name marked
  }
}
"""


def apply(network: Network, directory: Path, **keys: Any) -> None:
    """One service, by the command."""
    configuration = write_config(directory / "tula.yaml", {"web": service_of(network, **keys)})
    call_tula(network.lb, "apply", "-f", configuration)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A service that takes every port of TCP and UDP on the VIPs; everyone knows all MACs."""
    with Lab() as lab:
        network = flat(lab, clients=1)
        apply(network, tmp_path_factory.mktemp("lb"), protocol=["tcp", "udp"], ports="any")
        network.lb.set_promiscuous("eth0")  # else a frame for another MAC would not come so far
        for backend in network.backends:
            serve_udp(backend, [80])
        for vip in network.vips:
            assert len(flows(network.client, vip, 80, 30, "udp")) == 30
        yield network


def foreign(lb: Host) -> dict[str, int]:
    """What the foreign table counted."""
    listed = json.loads(
        lb.run(["nft", "-j", "list", "counters", "table", "inet", "foreign"]).stdout
    )
    counters = [item["counter"] for item in listed["nftables"] if "counter" in item]
    return {counter["name"]: counter["packets"] for counter in counters}


def counted(lb: Host) -> int:
    """Every packet that Tula counted: those of services, and those for no backend."""
    status = json.loads(call_tula(lb, "status", "--json").stdout)
    listed = json.loads(lb.run(["nft", "-j", "list", "counters", "table", "netdev", "tula"]).stdout)
    counters = [item["counter"]["packets"] for item in listed["nftables"] if "counter" in item]
    return sum(service["packets"] for service in status["services"]) + sum(counters)


@pytest.mark.parametrize("ports", [[80], [80, "8000-8010"], "any"], ids=["port", "range", "any"])
def test_the_hosts_own_traffic_passes_unmarked_and_uncounted(
    lab: Lab, tmp_path: Path, ports: object
) -> None:
    network = flat(lab, clients=1)
    lb, client = network.lb, network.client
    apply(network, tmp_path, ports=ports, protocol="udp")
    lb.run(["nft", "-f", "-"], input=MARKED)
    own = [80, 8005, 9999]
    hers = [address_of(lb, family) for family in FAMILIES]
    serve_tcp(lb, own, [*hers, *network.vips])  # on the VIPs too: the service is of UDP
    serve_udp(lb, own, hers)
    before = counted(lb)
    for family in FAMILIES:
        for port in own:
            assert tcp_ask(client, vip_of(network, family), port) == "lb"
            assert tcp_ask(client, address_of(lb, family), port) == "lb"
            assert udp_ask(client, address_of(lb, family), port) == "lb"
    assert counted(lb) == before
    after = foreign(lb)
    assert after["seen"] >= 2 * 3 * (2 * 3 + 1)
    assert after["marked"] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_balancer_answers_echo_requests_to_the_vip(everything: Network, family: int) -> None:
    network = everything
    client, lb, vip = network.client, network.lb, vip_of(network, family)
    echo = ICMP(id=7) if family == 4 else ICMPv6EchoRequest(id=7)

    def is_reply(frame: bytes) -> bool:
        ip = Ether(frame).payload
        icmp = ip.getlayer(ICMP) or ip.getlayer(ICMPv6EchoReply)
        return icmp is not None and icmp.type in (0, 129) and (icmp.id, ip.src) == (7, vip)

    with Capture(client) as capture, watching(*network.backends) as watch:
        send_frame(client, "eth0", to(lb, client, ip_to(client, vip) / echo / b"tula"))
        (reply,) = capture.wait(is_reply, outgoing=False)
    assert Ether(reply).src == lb.mac()
    frames = [Ether(f) for b in network.backends for f in watch.frames(b, outgoing=False)]
    assert not [f for f in frames if f.src == lb.mac() and getattr(f.payload, "dst", "") == vip]


def to(lb: Host, client: Host, packet: Any, tag: Any = None, mac: str = "") -> bytes:
    """The bytes of a frame from the client to the balancer's MAC unless another is given."""
    ether = Ether(src=client.mac(), dst=mac or lb.mac())
    return bytes(ether / tag / packet if tag is not None else ether / packet)


def request(client: Host, vip: str, payload: bytes, hops: int = 64) -> Any:
    """A UDP request for the service."""
    return ip_to(client, vip, hops) / UDP(sport=40000, dport=80) / payload


def forwarded(network: Network, watch: Watch) -> list[Seen]:
    """What the balancer sent to the backends, once the last of what was sent has come."""

    def arrived() -> list[Seen]:
        seen = [p for b in network.backends for p in watch.packets(b, outgoing=False)]
        mine = [packet for packet in seen if packet.from_mac == network.lb.mac()]
        return mine if any(packet.payload == b"last" for packet in mine) else []

    return wait_until(arrived, what="the last request at a backend")


TO_MANY = ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01")
GROUPS = {
    False: [("10.9.0.255", TO_MANY[0]), ("224.0.0.1", TO_MANY[1])],
    True: [("ff02::1", TO_MANY[2])],
}
"""Addresses of many machines and their MACs, by whether they are IPv6."""

STRANGE: dict[str, Callable[[Network, str], list[bytes]]] = {
    "vlan": lambda n, vip: [
        to(n.lb, n.client, request(n.client, vip, b"no"), tag)
        for tag in (Dot1Q(vlan=7), Dot1AD(vlan=7), Dot1Q(vlan=7) / Dot1Q(vlan=8))
    ],
    "last-hop": lambda n, vip: [
        to(n.lb, n.client, request(n.client, vip, b"no", hops)) for hops in (1, 0)
    ],
    "broadcast": lambda n, vip: [
        to(n.lb, n.client, request(n.client, destination, b"no"), mac=mac)
        for destination, mac in (*((vip, mac) for mac in TO_MANY), *GROUPS[":" in vip])
    ],
    "other-mac": lambda n, vip: [
        to(n.lb, n.client, request(n.client, vip, b"no"), mac="02:00:00:00:00:99")
    ],
}


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("family", FAMILIES)
def test_strange_frames_are_not_forwarded(everything: Network, family: int, strange: str) -> None:
    """Not even those of a flow that is hot, whose packets see one rule only."""
    network = everything
    client, lb, vip = network.client, network.lb, vip_of(network, family)
    frames = STRANGE[strange](network, vip)
    with watching(*network.backends) as watch:
        hot = to(lb, client, request(client, vip, b"hot"))
        send_frame(client, "eth0", hot, hot, to(lb, client, request(client, vip, b"last")))
        assert len(forwarded(network, watch)) == 3
    with watching(lb, *network.backends) as watch:
        send_frame(client, "eth0", *frames, to(lb, client, request(client, vip, b"last")))
        passed = forwarded(network, watch)
    assert len(watch.frames(lb, outgoing=False)) > len(frames), "they reached the balancer"
    assert [packet.payload for packet in passed] == [b"last"]


@pytest.mark.parametrize("tag", [Dot1Q(vlan=0, prio=5), Dot1AD(vlan=0)], ids=["802.1Q", "802.1ad"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tag_of_vlan_0_is_no_vlan(everything: Network, family: int, tag: Any) -> None:
    """It says the frame's priority only: forwarded as without it, and answered."""
    network = everything
    client, lb, vip = network.client, network.lb, vip_of(network, family)

    def answered(frame: bytes) -> bool:
        udp = Ether(frame).getlayer(UDP)
        return udp is not None and (udp.sport, udp.dport) == (80, 40000)

    with watching(*network.backends) as watch, Capture(client) as capture:
        first, again = (to(lb, client, request(client, vip, text), tag) for text in (b"a", b"b"))
        send_frame(client, "eth0", first, again, to(lb, client, request(client, vip, b"last")))
        passed = forwarded(network, watch)
        capture.wait(answered, 3, outgoing=False)
    assert [packet.payload for packet in passed] == [b"a", b"b", b"last"]
    assert len({packet.to_mac for packet in passed}) == 1
    in_vlan = tag / Dot1Q(vlan=7)
    with watching(*network.backends) as watch:
        inner = to(lb, client, request(client, vip, b"no"), in_vlan)
        send_frame(client, "eth0", inner, to(lb, client, request(client, vip, b"last")))
        assert [packet.payload for packet in forwarded(network, watch)] == [b"last"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lowest_ttl_that_is_forwarded_is_2(everything: Network, family: int) -> None:
    network = everything
    with watching(*network.backends) as watch:
        last = request(network.client, vip_of(network, family), b"last", hops=2)
        send_frame(network.client, "eth0", to(network.lb, network.client, last))
        assert [(p.payload, p.hops) for p in forwarded(network, watch)] == [(b"last", 1)]
