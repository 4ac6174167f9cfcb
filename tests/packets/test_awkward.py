"""Odd packets do no harm: options, extension headers, cut-short headers, rare TCP flags.

::

    client-1               lb                 backend-1, -2, -3   VIP:80 tcp, udp
        │                   │                       │
    ════╧═══════════════════╧═══════════════════════╧══════════════════════  lan
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q
from scapy.packet import Raw

from support.crafted import Crafted, arrivals, wait_arrivals
from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, watching
from tula.lab import Lab, Network, flat, send_frame, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

TAIL = b"awkward!"
EXTENSIONS: dict[str, Any] = {
    "hop-by-hop": IPv6ExtHdrHopByHop(),
    "destination options": IPv6ExtHdrDestOpt(),
    "routing": IPv6ExtHdrRouting(type=4, segleft=0),
    "all three": IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(segleft=0),
    "an atomic fragment": IPv6ExtHdrFragment(id=5),
    "options, then an atomic fragment": IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=6),
}
OPENINGS: dict[str, Any] = {
    "data": {"flags": "S"},
    "fast open": {"flags": "S", "options": [("TFO", (1, 2)), ("NOP", None), ("NOP", None)]},
    "ECN": {"flags": "SEC"},
    "urgent": {"flags": "SU", "urgptr": 3},
    "push": {"flags": "SP"},
}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, clients=1)
        for backend in made.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        yield made


class Balanced(Crafted):
    """Sends one packet at a time and says which backend got it."""

    def __init__(self, network: Network, directory: Path) -> None:
        super().__init__(network)
        self._configuration = directory / "tula.yaml"
        self.lb.run(["nft", "delete", "table", "netdev", "tula"], check=False)
        self.apply()

    def apply(self, drained: str = "", **keys: Any) -> None:
        backends = backends_of(*self.network.backends)
        if drained:
            backends[drained]["weight"] = 0
        both = {"protocol": ["tcp", "udp"], "backends": backends}
        services = {"web": service_of(self.network, **both, **keys)}
        InProcess(self.lb).apply(write_config(self._configuration, services))

    def goes_to(self, packet: Any) -> str:
        """The one backend that received the packet, which ends in TAIL."""
        with watching(*self.network.backends) as watch:
            self.send(packet)
            (name,) = wait_arrivals(watch, self.network.backends, TAIL, 1)
            return name

    def nobody_gets(self, *frames: bytes) -> None:
        """All of these stay at the balancer."""
        with watching(*self.network.backends) as watch:
            send_frame(self.client, "eth0", *frames)
            self.settle(4, 80)
            assert arrivals(watch, self.network.backends, TAIL) == {}


@pytest.fixture
def balanced(network: Network, tmp_path: Path) -> Balanced:
    return Balanced(network, tmp_path)


def transport(protocol: str, sport: int, flags: str = "S", **fields: Any) -> Any:
    if protocol == "udp":
        return UDP(sport=sport, dport=80) / TAIL
    return TCP(sport=sport, dport=80, flags=flags, **fields) / TAIL


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_extension_headers_are_seen_through(
    balanced: Balanced, extension: str, protocol: str
) -> None:
    """A flow is learned from behind them, held against the hash, and known behind them."""
    header = balanced.ip(6) / EXTENSIONS[extension]
    for port in range(20000, 20002):
        first = balanced.goes_to(header / transport(protocol, port))
        balanced.apply(drained=first)
        plain = balanced.ip(6) / transport(protocol, port, "A")
        assert balanced.goes_to(plain) == first, "learned"
        assert balanced.goes_to(header / transport(protocol, port, "A")) == first, "known"
        assert balanced.goes_to(plain) == first, "and still"
        balanced.apply()


@pytest.mark.parametrize("scheduler", ["maglev", "rr"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_packets_with_ipv4_options_go_by_hash(
    balanced: Balanced, protocol: str, scheduler: str
) -> None:
    """Whatever the scheduler: the table does not hold them, and its flows are not disturbed."""
    ports = range(21000, 21012)
    plain = {port: transport(protocol, port, "A") for port in ports}
    hashed = {port: balanced.goes_to(balanced.ip(4) / plain[port]) for port in ports}
    assert len(set(hashed.values())) > 1
    balanced.apply(scheduler=scheduler)
    for port in ports:
        for options in ([IPOption_NOP()] * 4, [IPOption_RR(), IPOption_NOP()]):
            header = balanced.ip(4, options=options)
            for flags in ("S", "A"):
                packet = header / transport(protocol, port, flags)
                assert balanced.goes_to(packet) == hashed[port]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opening", OPENINGS)
def test_connections_that_open_strangely_are_learned(
    balanced: Balanced, opening: str, family: int
) -> None:
    ip = balanced.ip(family)
    first = balanced.goes_to(ip / transport("tcp", 22000, **OPENINGS[opening]))
    balanced.apply(drained=first)
    for flags in ("A", "PA", "AEC", "AU", "AC", ""):
        assert balanced.goes_to(ip / transport("tcp", 22000, flags)) == first


@pytest.mark.parametrize("family", FAMILIES)
def test_headers_cut_short_do_not_disturb_a_connection(balanced: Balanced, family: int) -> None:
    ip = balanced.ip(family)
    first = balanced.goes_to(ip / transport("tcp", 23000))
    balanced.apply(drained=first)
    size = len(ip)
    segment = bytes(ip / transport("tcp", 23000, "F"))[size:]
    kind = {"proto": 6} if family == 4 else {"nh": 6}
    cut = [balanced.ip(family, **kind) / Raw(segment[:length]) for length in range(20)]
    pieces = balanced.pieces(family, segment, 9, [8], protocol=6)
    balanced.send(*cut, *pieces, Raw(bytes(ip)[: size - 5]))
    assert balanced.goes_to(ip / transport("tcp", 23000, "A")) == first
    # Nor do they open one: the same without a connection is not learned, as the end of an unknown
    # one is not, which shows where it would go.
    loose = bytes(ip / transport("tcp", 23001, "A"))[size:]
    other = balanced.goes_to(ip / transport("tcp", 23001, "FA"))
    balanced.send(*balanced.pieces(family, loose, 10, [8], protocol=6))
    balanced.apply(drained=other)
    assert balanced.goes_to(ip / transport("tcp", 23001, "FA")) != other


def test_ports_of_a_service_are_not_found_in_disguise(balanced: Balanced) -> None:
    """Port 0, a VLAN tag, and a later fragment behind a first one's header (RFC 7112)."""
    udp = UDP(sport=24000, dport=80) / TAIL
    four, six = balanced.ip(4), balanced.ip(6, fl=80)
    nested = IPv6ExtHdrFragment(id=3, m=1) / IPv6ExtHdrFragment(id=4, offset=100, nh=17)
    frames = [
        balanced.frame(four / UDP(sport=24000, dport=0) / TAIL),
        balanced.frame(six / UDP(sport=24000, dport=0) / TAIL),
        balanced.frame(six / nested / Raw(b"\0\x50\0\x50" * 4 + TAIL)),
        *(
            balanced.frame(ip)[:12] + b"\x81\x00" + bytes(Dot1Q(vlan=5, type=kind) / ip / udp)
            for kind, ip in ((0x0800, four), (0x86DD, six))
        ),
        balanced.frame(IPv6(src=six.src, dst=six.dst, nh=17, plen=0) / Raw(TAIL)),
    ]
    balanced.nobody_gets(*frames)
