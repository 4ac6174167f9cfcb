"""What the doctor sends is what scapy reads, with checksums that scapy computes too."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, GRE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from tula.doctor import packets
from tula.model.config import IPAddress, Tunnel, TunnelSettings

V4 = (IPv4Address("192.0.2.7"), IPv4Address("198.51.100.10"))
V6 = (IPv6Address("2001:db8::7"), IPv6Address("2001:db8:1::10"))
PAIRS = pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
Ends = tuple[IPAddress, IPAddress]
numbers = st.integers(1, packets.PORTS - 1)


def read(data: bytes) -> Packet:
    """By the version in its first bits."""
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)


def with_own_checksums(packet: Packet) -> bytes:
    """The same packet, with every checksum computed by scapy."""
    again = packet.copy()
    layer = again
    while layer:
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                del layer.fields[name]
        layer = layer.payload
    return bytes(again)


@PAIRS
@given(port=st.integers(1, 65535), number=numbers)
def test_a_syn(ends: Ends, port: int, number: int) -> None:
    data = packets.syn(*ends, port, number)
    packet = read(data)
    assert with_own_checksums(packet) == data
    assert (packet.src, packet.dst) == tuple(map(str, ends))
    assert (packet[TCP].sport, packet[TCP].dport) == (packets.source_port(number), port)
    assert packet[TCP].flags == "S"
    assert packet[TCP].options == [("MSS", 1460)]


@PAIRS
def test_a_rst_follows_the_syn(ends: Ends) -> None:
    syn, rst = (read(make(*ends, 80, 5))[TCP] for make in (packets.syn, packets.rst))
    assert rst.flags == "R"
    assert rst.seq == syn.seq + 1
    assert (rst.sport, rst.dport) == (syn.sport, syn.dport)
    assert with_own_checksums(read(packets.rst(*ends, 80, 5))) == packets.rst(*ends, 80, 5)


@PAIRS
@given(payload=st.binary(max_size=64), number=numbers)
def test_a_datagram(ends: Ends, payload: bytes, number: int) -> None:
    data = packets.datagram(*ends, 53, payload, number)
    packet = read(data)
    assert with_own_checksums(packet) == data
    assert packet[UDP].dport == 53
    assert bytes(packet[UDP].payload) == payload


@PAIRS
@given(size=st.integers(100, 9000), number=numbers)
def test_an_echo_of_a_size(ends: Ends, size: int, number: int) -> None:
    data = packets.echo(*ends, number, size)
    assert len(data) == size
    packet = read(data)
    assert with_own_checksums(packet) == data
    echo = packet[ICMP] if packet.version == 4 else packet[ICMPv6EchoRequest]
    assert echo.seq == number & 0xFFFF
    assert packet.version == 6 or packet.flags == "DF"


@PAIRS
@pytest.mark.parametrize("inside", [V4, V6], ids=["in4", "in6"])
@pytest.mark.parametrize("tunnel", list(Tunnel))
def test_tunnels(ends: Ends, inside: Ends, tunnel: Tunnel) -> None:
    packet = packets.syn(*inside, 80, 9)
    mac = bytes.fromhex("02540a00000b")
    settings = TunnelSettings()
    outer = read(packets.encapsulated(packet, tunnel, *ends, mac, settings, 9))
    protocol = outer.proto if outer.version == 4 else outer.nh
    payload = bytes(outer.payload)
    if tunnel is Tunnel.IPIP:
        assert protocol == (4 if inside is V4 else 41)
        assert payload == packet
    elif tunnel is Tunnel.GRE:
        assert protocol == 47
        assert bytes(GRE(payload).payload) == packet
    else:
        assert with_own_checksums(outer) == bytes(outer)
        body = bytes(outer[UDP].payload)
        if tunnel is Tunnel.GUE:
            assert outer[UDP].dport == settings.gue_port
            assert body == bytes([0, 4 if inside is V4 else 41, 0, 0]) + packet
        else:
            assert outer[UDP].dport == settings.vxlan_port
            vxlan = VXLAN(body)
            assert vxlan.vni == settings.vxlan_id
            assert vxlan.payload.dst == "02:54:0a:00:00:0b"
            assert bytes(vxlan.payload.payload) == packet


def test_who_has() -> None:
    mac = bytes.fromhex("020000000001")
    asked = ARP(packets.arp_request(mac, *V4))
    assert (asked.op, asked.hwsrc, asked.psrc, asked.pdst) == (
        1,
        "02:00:00:00:00:01",
        *map(str, V4),
    )
    data = packets.solicitation(mac, *V6)
    solicited = IPv6(data)
    assert with_own_checksums(solicited) == data
    assert (solicited.dst, solicited.hlim) == ("ff02::1:ff00:10", 255)
    assert solicited[ICMPv6ND_NS].tgt == str(V6[1])
    assert solicited[ICMPv6NDOptSrcLLAddr].lladdr == "02:00:00:00:00:01"
