"""Which packets are too large, and how often senders are told."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment

from support.builders import make_backend, make_config, make_host, make_service
from tula.daemon.large_packets import Pace, parse_packet
from tula.kernel.large_packets import LargePacket, size_filter, too_big
from tula.model.host import HostView
from tula.plan.packet_sizes import SizeLimits, plan_size_limits
from tula.plan.routes import plan_routes

VIP = ip_address("10.0.0.100")
WEB = make_config(
    make_service(backends=[make_backend(0)]),
    make_service("rest", ports=[], backends=[make_backend(1)]),
    interfaces=["eth0"],
)
BODY = bytes(3000)


def limits(second: list[str], mtu: int) -> SizeLimits:
    host: HostView = make_host(WEB, second=second)
    host = replace(host, links={**host.links, "eth0": replace(host.links["eth0"], mtu=mtu)})
    return plan_size_limits(WEB, host, plan_routes(WEB, host).hops)


def test_nothing_is_watched_where_all_fits() -> None:
    assert not limits(["10.0.0.10"], 1500).arrivals
    assert not limits([], 9000).arrivals, "backends by the same interface"


def test_each_port_has_the_limit_of_its_own_service() -> None:
    found = limits(["10.0.0.10"], 9000)
    assert found.arrivals == {2: (1500, 9000)}
    assert found.of(VIP, 6, 80) == 1500
    assert found.of(VIP, 6, 81) == 9000, "any port, by another interface"
    assert found.of(VIP, 17, 80) is None


@pytest.mark.parametrize(
    ("packet", "segment", "size"),
    [
        (IP(src="10.0.0.9", dst="10.0.0.100") / UDP(dport=80) / BODY, 0, 3028),
        (IP(src="10.0.0.9", dst="10.0.0.100") / TCP(dport=80) / BODY, 0, 3040),
        (IP(src="10.0.0.9", dst="10.0.0.100") / TCP(dport=80) / BODY, 1448, 1488),
        (IP(src="10.0.0.9", dst="10.0.0.100", flags="MF") / UDP(dport=80) / BODY, 0, 3028),
        (IPv6(src="2001:db8::9", dst="2001:db8::100") / TCP(dport=80) / BODY, 0, 3060),
        (
            IPv6(src="2001:db8::9", dst="2001:db8::100")
            / IPv6ExtHdrFragment(m=1)
            / UDP(dport=80)
            / BODY,
            0,
            3056,
        ),
    ],
)
def test_sizes_and_ports(packet: IP, segment: int, size: int) -> None:
    seen = parse_packet(LargePacket(bytes(packet)[:548], segment))
    assert seen is not None
    assert (seen.port, seen.size) == (80, size)
    assert str(seen.destination) == packet.dst


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"E",
        bytes(IP(frag=100) / BODY),
        bytes(IPv6() / IPv6ExtHdrFragment(offset=100) / BODY),
        bytes(IP() / ICMP() / BODY),
        bytes(IP() / UDP())[:22],
    ],
)
def test_what_has_no_port_is_left_alone(data: bytes) -> None:
    assert parse_packet(LargePacket(data, 0)) is None


def test_a_sender_is_told_now_and_then() -> None:
    pace, one = Pace(), ip_address("10.0.0.9")
    assert pace.allows(one, 10.0)
    assert not pace.allows(one, 10.1)
    assert pace.allows(one, 10.3)
    told = sum(pace.allows(ip_address(0x0A000000 + n), 20.0) for n in range(1000))
    assert told == 100, "a second's worth, whoever they are"


def test_the_errors() -> None:
    quoted = bytes(IP(src="10.0.0.9", dst="10.0.0.100") / UDP(dport=80) / b"x")
    error = ICMP(too_big(4, 1500, quoted))
    assert (error.type, error.code, error.nexthopmtu) == (3, 4, 1500)
    checked = bytes(ICMP(type=3, code=4, nexthopmtu=1500) / quoted)
    assert too_big(4, 1500, quoted) == checked
    six = ICMPv6PacketTooBig(too_big(6, 1400, quoted))
    assert (six.type, six.mtu) == (2, 1400)
    assert struct.calcsize("=BBHHHH") == 10


def test_the_filter_ends_where_it_must() -> None:
    program = size_filter(1500, 9000)
    for at, (code, true, false, _) in enumerate(program):
        if code & 0x07 == 0x05:
            assert at + 1 + max(true, false) < len(program)
    assert [code for code, *_ in program[-2:]] == [0x06, 0x06]
