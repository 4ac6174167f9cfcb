"""ICMP errors reach the backend that holds the flow inside them.

::

    client-1 (and routers that it plays)     lb      backend-1, -2, -3
        │                                    │           │   VIP: port 80        "exact"
        │                                    │           │        8000 to 8010   "range"
        │                                    │           │        any other      "any"
    ════╧════════════════════════════════════╧═══════════╧════════════════  lan

Someone on the way from the VIP to a client drops a packet and tells the VIP, whose address is
the balancer's. The backend must hear of it: without path-MTU errors, downloads stall.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from support.crafted import Crafted
from support.icmp_errors import ERRORS, error, inside, reached
from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, PROTOCOLS, address_of, udp_socket, vip_of, watching
from tula.lab import Lab, Network, flat, flows, serve_tcp, serve_udp, tcp_flows, udp_ask, wait_until

pytestmark = pytest.mark.kernel

PORTS = {"exact": 80, "range": 8005, "any": 9999}
SERVICES: dict[str, Any] = {"exact": [80], "range": ["8000-8010"], "any": "any"}
FLOWS = range(20000, 20100)
WAYS = ("table", "table flushed", "no table")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, clients=1)
        for backend in made.backends:
            serve_tcp(backend, PORTS.values())
            serve_udp(backend, PORTS.values())
        yield made


def apply(network: Network, directory: Path, first: int = 100, **top: Any) -> None:
    """All services; ``first`` is the weight of the first backend."""
    backends = backends_of(*network.backends)
    backends["backend-1"]["weight"] = first
    services = {
        name: service_of(network, protocol=["tcp", "udp"], ports=ports, backends=backends)
        for name, ports in SERVICES.items()
    }
    configuration = write_config(directory / "tula.yaml", services, **top)
    InProcess(network.lb).apply(configuration)


def flush_tables(network: Network) -> None:
    """All connections are forgotten, as after a reboot."""
    listed = network.lb.run(["nft", "list", "table", "netdev", "tula"]).stdout
    names = re.findall(r"map ((?:tcp|udp|closed)[46]_\d+) {", listed)
    assert len(names) >= 4
    for name in names:
        network.lb.run(["nft", "flush", "map", "netdev", "tula", name])


@pytest.fixture
def crafted(network: Network, tmp_path: Path) -> Crafted:
    network.lb.run(["nft", "delete", "table", "netdev", "tula"], check=False)
    apply(network, tmp_path)
    return Crafted(network)


@pytest.mark.parametrize("ports", PORTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
def test_errors_reach_the_flows_backend_100_of_100(
    crafted: Crafted, tmp_path: Path, way: str, family: int, protocol: str, ports: str
) -> None:
    network, port = crafted.network, PORTS[ports]
    if way == "no table":
        apply(network, tmp_path, connections={"enabled": False})
    vip = vip_of(network, family)
    opened = tcp_flows(network.client, vip, port, FLOWS) if protocol == "tcp" else []
    held = {flow.source_port: flow.backend for flow in opened}
    held = held or flows(network.client, vip, port, FLOWS, "udp")
    assert set(held.values()) == {backend.name for backend in network.backends}
    if way == "table":
        apply(network, tmp_path, first=0)  # what the hash would not choose any more
    elif way == "table flushed":
        flush_tables(network)
    want = sorted((held[client], *kind, client) for kind in ERRORS[family] for client in FLOWS)
    before = crafted.named_counters()["icmp_steered"]
    with watching(*network.backends) as watch:
        inner = {client: inside(crafted, family, protocol, port, client) for client in FLOWS}
        for kind in ERRORS[family]:
            crafted.send(*(error(crafted, family, kind, inner[client]) for client in FLOWS))

        def all_there() -> bool:
            there = [
                (host.name, *one)
                for host in network.backends
                for one in reached(watch.frames(host, outgoing=False), family)
            ]
            return sorted(there) == want

        wait_until(all_there, what="every error at its flow's backend, and nowhere else")
    assert crafted.named_counters()["icmp_steered"] == before + len(want)
    for flow in opened:
        flow.close(reset=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_and_errors_about_its_own_traffic_are_the_balancers(
    crafted: Crafted, family: int
) -> None:
    lb, vip = crafted.lb, vip_of(crafted.network, family)
    before = crafted.named_counters()["icmp_steered"]
    with watching(crafted.client) as watch:
        for number, address in enumerate((vip, address_of(lb, family))):
            echo = (ICMP if family == 4 else ICMPv6EchoRequest)(id=7, seq=number)
            echo = crafted.ip(family, address) / echo / Raw(b"echo" * 500)
            whole = bytes(echo)[20 if family == 4 else 40 :]
            protocol = 1 if family == 4 else 58
            pieces = crafted.pieces(family, whole, number, [1000], protocol, destination=address)
            crafted.send(*pieces)

        def answered() -> bool:
            frames = map(Ether, watch.frames(crafted.client, outgoing=False))
            return {f.payload.src for f in frames if b"echo" in bytes(f)} == {
                *(vip, address_of(lb, family))
            }

        wait_until(answered, what="answers to both, which came in pieces")
    with udp_socket(lb, family, 0) as asking:
        asking.connect((address_of(crafted.client, family), 9))
        asking.send(b"anyone?")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(1)
    assert crafted.named_counters()["icmp_steered"] == before


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_that_are_about_no_flow_of_a_service_stay(crafted: Crafted, family: int) -> None:
    """For the balancer's own address, cut short, about other protocols, about a later fragment."""
    network = crafted.network
    udp_ask(network.client, vip_of(network, family), 80, source_port=20000)
    inner = inside(crafted, family, "udp", 80, 20000)
    size = 20 if family == 4 else 40
    other = inner.copy()
    if family == 4:
        other.proto = 132
        later = IP(src=inner.src, dst=inner.dst, frag=100, proto=17) / bytes(inner)[size:]
    else:
        other.nh = 132
        part = IPv6ExtHdrFragment(nh=17, offset=100, m=0)
        later = IPv6(src=inner.src, dst=inner.dst) / part / bytes(inner)[size:]
    kind = ERRORS[family][0]
    crafts = [
        error(crafted, family, kind, inner, to=address_of(crafted.lb, family)),
        error(crafted, family, kind, Raw(bytes(inner)[:size])),
        error(crafted, family, kind, Raw(bytes(inner)[:3])),
        error(crafted, family, kind, Raw(b"")),
        error(crafted, family, kind, other),
        error(crafted, family, kind, later),
    ]
    with watching(*network.backends) as watch:
        crafted.send(*crafts)
        crafted.settle(family, 80)
        assert [reached(watch.frames(b, False), family) for b in network.backends] == [[], [], []]
