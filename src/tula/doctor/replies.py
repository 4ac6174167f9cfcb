"""Parses the packets that come in: replies, ICMP errors, ARP and neighbour discovery. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from tula.doctor.packets import FIRST_PORT, IDENT, PORTS
from tula.model.config import IPAddress


class ReplyKind(StrEnum):
    """What kind of reply a packet is."""

    OPEN = "open"
    """SYN-ACK, or a datagram"""
    CLOSED = "closed"
    """RST"""
    ECHO = "echo"
    ERROR = "error"
    """ICMP"""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to the packet with that ``number`` (modulo 65,536 for some kinds of packets).

    ``icmp`` is the type and code of an ICMP error; ``quoted`` is the destination, and
    ``quoted_protocol`` the protocol, of the packet that it is about. ``mtu`` is in bytes.
    """

    kind: ReplyKind
    number: int
    source: IPAddress
    mss: int = 0
    icmp: tuple[int, int] = (0, 0)
    mtu: int = 0
    quoted: IPAddress | None = None
    quoted_protocol: int = 0


@dataclass(frozen=True, slots=True)
class AddressClaim:
    """A machine with this MAC claims the address.

    ``from_request``: as the sender of an ARP request, from which neighbours learn too.
    """

    address: IPAddress
    mac: bytes
    from_request: bool = False


def parse_arp(data: bytes) -> AddressClaim | None:
    """An ARP reply, or the sender of a request (RFC 826); None for anything else."""
    if len(data) < 28 or data[:6] != struct.pack("!HHBB", 1, 0x0800, 6, 4):
        return None
    operation, address = int.from_bytes(data[6:8], "big"), IPv4Address(data[14:18])
    if operation not in (1, 2) or not int(address):
        return None  # a probe for whether an address is free (RFC 5227)
    return AddressClaim(address, data[8:14], operation == 1)


def parse_ip(data: bytes, link_mac: bytes = b"") -> Reply | AddressClaim | None:
    """The reply or claim in an IP packet of either version; None if it is neither."""
    found = _header(data)
    if found is None:
        return None
    source, _, protocol, body, _ = found
    if protocol == 6 and len(body) >= 20:
        return _tcp(source, body)
    if protocol == 17 and len(body) >= 8:
        port = int.from_bytes(body[2:4], "big")
        return Reply(ReplyKind.OPEN, port - FIRST_PORT, source) if _ours(port) else None
    if protocol in (1, 58) and len(body) >= 8:
        return _icmp(source, protocol == 1, body, link_mac)
    return None


def addresses_of(data: bytes) -> tuple[IPAddress, IPAddress] | None:
    """Source and destination of an IP packet."""
    found = _header(data)
    return (found[0], found[1]) if found is not None else None


def _header(data: bytes) -> tuple[IPAddress, IPAddress, int, bytes, int] | None:
    """Source, destination, protocol, payload and number; extension headers other than
    fragments are not followed."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        length = (data[0] & 0xF) * 4
        if int.from_bytes(data[6:8], "big") & 0x1FFF:
            return None  # a later fragment: the first one has the headers
        number = int.from_bytes(data[4:6], "big")
        source, target = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        return source, target, data[9], data[length:], number
    if len(data) >= 40 and data[0] >> 4 == 6:
        number = int.from_bytes(data[:4], "big") & 0xFFFFF
        protocol, body = data[6], data[40:]
        if protocol == 44 and len(body) >= 8:  # a large echo may come back in fragments
            if int.from_bytes(body[2:4], "big") >> 3:
                return None
            protocol, body = body[0], body[8:]
        return IPv6Address(data[8:24]), IPv6Address(data[24:40]), protocol, body, number
    return None


def _tcp(source: IPAddress, body: bytes) -> Reply | None:
    port = int.from_bytes(body[2:4], "big")
    if not _ours(port):
        return None
    flags = body[13]
    if flags & 0x04:
        return Reply(ReplyKind.CLOSED, port - FIRST_PORT, source)
    if flags & 0x12 != 0x12:
        return None
    return Reply(ReplyKind.OPEN, port - FIRST_PORT, source, mss=_mss(body))


def _mss(body: bytes) -> int:
    """The MSS option of a SYN-ACK; 536 without it (RFC 9293, section 3.7.1)."""
    at, end = 20, min((body[12] >> 4) * 4, len(body))
    while at + 1 < end and body[at] != 0:
        if body[at] == 1:
            at += 1
            continue
        if body[at] == 2 and at + 4 <= end:
            return int.from_bytes(body[at + 2 : at + 4], "big")
        at += max(body[at + 1], 2)
    return 536


def _icmp(source: IPAddress, v4: bool, body: bytes, link_mac: bytes) -> Reply | AddressClaim | None:
    kind, code = body[0], body[1]
    if kind == (0 if v4 else 129):
        ident, sequence = struct.unpack("!HH", body[4:8])
        return Reply(ReplyKind.ECHO, sequence, source) if ident == IDENT else None
    if not v4 and kind == 136 and len(body) >= 24:
        return AddressClaim(IPv6Address(body[8:24]), _target_mac(body[24:]) or link_mac)
    if kind not in ((3, 5, 11, 12) if v4 else (1, 2, 3, 4)):
        return None
    quoted = _header(body[8:])
    if quoted is None:
        return None
    mtu = 0
    if v4 and (kind, code) == (3, 4):
        mtu = int.from_bytes(body[6:8], "big")
    elif not v4 and kind == 2:
        mtu = int.from_bytes(body[4:8], "big")
    _, target, protocol, _, number = quoted
    return Reply(
        ReplyKind.ERROR, number, source, icmp=(kind, code), mtu=mtu, quoted=target,
        quoted_protocol=protocol,
    )  # fmt: skip


def _target_mac(options: bytes) -> bytes:
    """The target link-layer address option of a neighbour advertisement."""
    while len(options) >= 8 and options[1]:
        if options[0] == 2:
            return options[2:8]
        options = options[options[1] * 8 :]
    return b""


def _ours(port: int) -> bool:
    return FIRST_PORT <= port < FIRST_PORT + PORTS
