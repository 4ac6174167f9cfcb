"""Responses as others' machines make them are understood; anything else is no answer."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6ND_NA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet, Raw

from tula.doctor import packets
from tula.doctor.replies import AddressClaim, Reply, ReplyKind, addresses_of, parse_arp, parse_ip

PORT = packets.source_port(77)


def ip(version: int) -> Packet:
    if version == 4:
        return IP(src="198.51.100.10", dst="192.0.2.7")
    return IPv6(src="2001:db8::10", dst="2001:db8::7")


VIP = {4: ip_address("198.51.100.10"), 6: ip_address("2001:db8::10")}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


@VERSIONS
@given(mss=st.integers(1, 65535), others=st.sampled_from([[], [("NOP", None)], [("SAckOK", b"")]]))
def test_a_syn_ack_and_its_mss(version: int, mss: int, others: list[tuple[str, object]]) -> None:
    options = [*others, ("MSS", mss)]
    data = bytes(ip(version) / TCP(sport=80, dport=PORT, flags="SA", options=options))
    assert parse_ip(data) == Reply(ReplyKind.OPEN, 77, VIP[version], mss=mss)


@VERSIONS
def test_a_syn_ack_without_one(version: int) -> None:
    data = bytes(ip(version) / TCP(sport=80, dport=PORT, flags="SA"))
    found = parse_ip(data)
    assert isinstance(found, Reply)
    assert found.mss == 536


@VERSIONS
@pytest.mark.parametrize("flags", ["R", "RA"])
def test_a_rst(version: int, flags: str) -> None:
    data = bytes(ip(version) / TCP(sport=80, dport=PORT, flags=flags))
    assert parse_ip(data) == Reply(ReplyKind.CLOSED, 77, VIP[version])


@VERSIONS
def test_a_datagram(version: int) -> None:
    data = bytes(ip(version) / UDP(sport=53, dport=PORT) / Raw(b"x"))
    assert parse_ip(data) == Reply(ReplyKind.OPEN, 77, VIP[version])


@VERSIONS
def test_echoes_of_others_are_none(version: int) -> None:
    for ident in (packets.IDENT, 1):
        four, six = ICMP(type=0, id=ident, seq=77), ICMPv6EchoReply(id=ident, seq=77)
        found = parse_ip(bytes(ip(version) / (four if version == 4 else six)))
        assert (found == Reply(ReplyKind.ECHO, 77, VIP[version])) is (ident == packets.IDENT)


def test_errors_quote_what_they_are_about() -> None:
    sent = packets.syn(ip_address("192.0.2.7"), ip_address("203.0.113.9"), 80, 77)
    data = bytes(ip(4) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(sent[:28]))
    wanted = {"icmp": (3, 4), "mtu": 1400, "quoted": ip_address("203.0.113.9")}
    assert parse_ip(data) == Reply(ReplyKind.ERROR, 77, VIP[4], quoted_protocol=6, **wanted)  # type: ignore[arg-type]
    sent = packets.syn(ip_address("2001:db8::7"), ip_address("2001:db8::9"), 80, 77)
    quoted = {"quoted": ip_address("2001:db8::9"), "quoted_protocol": 6}
    data = bytes(ip(6) / ICMPv6PacketTooBig(mtu=1300) / Raw(sent))
    assert parse_ip(data) == Reply(ReplyKind.ERROR, 77, VIP[6], icmp=(2, 0), mtu=1300, **quoted)  # type: ignore[arg-type]
    data = bytes(ip(6) / ICMPv6DestUnreach(code=4) / Raw(sent))
    assert parse_ip(data) == Reply(ReplyKind.ERROR, 77, VIP[6], icmp=(1, 4), **quoted)  # type: ignore[arg-type]


def test_owners() -> None:
    answer = ARP(op=2, hwsrc="02:00:00:00:00:09", psrc="10.0.0.9", pdst="10.0.0.2")
    mac = bytes.fromhex("020000000009")
    assert parse_arp(bytes(answer)) == AddressClaim(ip_address("10.0.0.9"), mac)
    asks = ARP(op=1, hwsrc="02:00:00:00:00:09", psrc="10.0.0.9", pdst="10.0.0.1")
    assert parse_arp(bytes(asks)) == AddressClaim(ip_address("10.0.0.9"), mac, from_request=True)
    assert parse_arp(bytes(ARP(op=1, psrc="0.0.0.0", pdst="10.0.0.1"))) is None
    said = ip(6) / ICMPv6ND_NA(tgt="2001:db8::99", S=1)
    assert parse_ip(bytes(said), mac) == AddressClaim(ip_address("2001:db8::99"), mac)
    other = ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:0a")
    found = parse_ip(bytes(said / other), mac)
    assert found == AddressClaim(ip_address("2001:db8::99"), bytes.fromhex("02000000000a"))


@given(st.binary(max_size=120))
def test_nothing_breaks_it(data: bytes) -> None:
    for first in (b"\x45", b"\x60", b""):
        parse_ip(first + data)
        addresses_of(first + data)
    parse_arp(data)


@VERSIONS
@given(cut=st.integers(0, 80))
def test_what_is_cut_off(version: int, cut: int) -> None:
    parse_ip(bytes(ip(version) / TCP(dport=PORT, flags="SA", options=[("MSS", 1460)]))[:cut])
