"""Announces to the network that this machine has a VIP now.

Neighbours that know another machine's MAC for it would go on sending there until their entry
times out. IPv4: an ARP announcement (RFC 5227, section 3); IPv6: an unsolicited neighbour
advertisement with the override flag to all nodes (RFC 4861, section 7.2.6).
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from tula.model.config import IPAddress
from tula.model.errors import KernelError
from tula.model.host import Link

_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = IPv6Address("ff02::1")
_ETH_ARP, _ETH_IPV6 = 0x0806, 0x86DD
_ICMPV6 = 58


class Announcer(Protocol):
    """Announces VIPs on links; the fake remembers them."""

    def announce(self, vip: IPAddress, link: Link) -> None:
        """Sends one announcement, if the link is up. Raises KernelError."""


class KernelAnnouncer:
    """Sends by a packet socket of the network namespace that the calling thread is in."""

    def announce(self, vip: IPAddress, link: Link) -> None:
        if len(link.mac) != 6:
            return  # no neighbours without MACs
        make = arp_announcement(vip, link.mac) if vip.version == 4 else advertisement(vip, link.mac)
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((link.name, 0))
                sender.send(make)
        except OSError as error:
            if error.errno == errno.ENETDOWN:
                return  # no neighbours on a link that is down
            raise KernelError(f"cannot announce {vip} on {link.name}: {error.strerror}") from error


def arp_announcement(vip: IPv4Address, mac: bytes) -> bytes:
    """An Ethernet frame: an ARP request whose sender and target are both the VIP (RFC 5227)."""
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + vip.packed + bytes(6) + vip.packed
    return _BROADCAST + mac + struct.pack("!H", _ETH_ARP) + arp


def advertisement(vip: IPv6Address, mac: bytes) -> bytes:
    """An Ethernet frame: an unsolicited neighbour advertisement, override set (RFC 4861)."""
    override = 0x20000000
    target_mac = struct.pack("!BB", 2, 1) + mac
    body = struct.pack("!BBHI", 136, 0, 0, override) + vip.packed + target_mac
    pseudo = vip.packed + _ALL_NODES.packed + struct.pack("!II", len(body), _ICMPV6)
    checksum = _checksum(pseudo + body)
    body = body[:2] + struct.pack("!H", checksum) + body[4:]
    # Hop limit 255 proves that no router forwarded it (RFC 4861, section 7.1.2).
    header = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255)
    ethernet = _ALL_NODES_MAC + mac + struct.pack("!H", _ETH_IPV6)
    return ethernet + header + vip.packed + _ALL_NODES.packed + body


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
