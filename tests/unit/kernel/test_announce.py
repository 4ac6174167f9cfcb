"""The announcements, read by another's eyes: scapy's, and the letters of the RFCs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6, in6_chksum
from scapy.layers.l2 import ARP, Ether

from tula.kernel.announce import KernelAnnouncer, advertisement, arp_announcement
from tula.model.host import Link

MACS = st.binary(min_size=6, max_size=6)


def colons(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)


@given(vip=st.integers(1, 2**32 - 2).map(IPv4Address), mac=MACS)
def test_an_arp_announcement_is_a_request_for_itself(vip: IPv4Address, mac: bytes) -> None:
    """RFC 5227, section 3: sender and target are the address, the target's MAC is zero."""
    data = arp_announcement(vip, mac)
    frame = Ether(data)
    assert (frame.dst, frame.src, frame.type) == ("ff:ff:ff:ff:ff:ff", colons(mac), 0x0806)
    arp = frame[ARP]
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, 1)
    assert (arp.hwsrc, arp.psrc) == (colons(mac), str(vip))
    assert (arp.hwdst, arp.pdst) == ("00:00:00:00:00:00", str(vip))
    assert len(data) == 42
    assert not arp.payload


@given(vip=st.integers(1, 2**128 - 2).map(IPv6Address), mac=MACS)
def test_an_advertisement_overrides_what_all_nodes_know(vip: IPv6Address, mac: bytes) -> None:
    """RFC 4861, sections 4.4 and 7.2.6: to all nodes, not solicited, override, target's MAC."""
    frame = Ether(advertisement(vip, mac))
    assert (frame.dst, frame.src, frame.type) == ("33:33:00:00:00:01", colons(mac), 0x86DD)
    header = frame[IPv6]
    assert (IPv6Address(header.src), header.dst, header.hlim) == (vip, "ff02::1", 255)
    assert (header.nh, header.tc, header.fl) == (58, 0, 0)
    assert header.plen == len(bytes(header.payload)) == 32
    told = frame[ICMPv6ND_NA]
    assert (told.type, told.code, told.R, told.S, told.O, told.res) == (136, 0, 0, 0, 1, 0)
    assert IPv6Address(told.tgt) == vip
    option = frame[ICMPv6NDOptDstLLAddr]
    assert (option.type, option.len, option.lladdr) == (2, 1, colons(mac))
    # A receiver sums pseudo header and message with the checksum in it, and must get zero.
    assert in6_chksum(58, header, bytes(header.payload)) == 0


@pytest.mark.parametrize("vip", [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")])
def test_a_link_without_macs_has_nobody_to_tell(
    vip: IPv4Address | IPv6Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket", lambda *_: pytest.fail("sent something"))
    KernelAnnouncer().announce(vip, Link("tun0", 7))
