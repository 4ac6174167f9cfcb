"""Builds the packets that the doctor sends. Pure.

Each has a number: as the IPv4 identification or IPv6 flow label of every header, which ICMP errors
quote, and as the source port or the echo's sequence number, which replies repeat.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from tula.model.config import IPAddress, Tunnel, TunnelSettings

ECHO, TCP, UDP = "echo", "tcp", "udp"
FIRST_PORT, PORTS = 10_000, 50_000
IDENT = 0x5475
"""The identifier of echo requests."""
_TTL = 64
_MSS = 1460
_DF = 0x4000
_SEQUENCE = 0x54756C61
_OUR_MAC = bytes.fromhex("025475ffffff")
"""The inner source inside VXLAN: locally administered, and nothing is sent to it."""


def source_port(number: int) -> int:
    """The TCP or UDP port that a numbered packet is sent from."""
    return FIRST_PORT + number % PORTS


def syn(source: IPAddress, target: IPAddress, port: int, number: int) -> bytes:
    """The first packet of a TCP connection, with a usual MSS (RFC 9293)."""
    return ip(source, target, 6, _tcp(source, target, port, number, 0x02), number)


def rst(source: IPAddress, target: IPAddress, port: int, number: int) -> bytes:
    """Resets the connection that ``syn`` opened."""
    return ip(source, target, 6, _tcp(source, target, port, number, 0x04), number)


def datagram(
    source: IPAddress, target: IPAddress, port: int, payload: bytes, number: int, ttl: int = 0
) -> bytes:
    """UDP (RFC 768); ``ttl`` as for ``ip``."""
    body = udp(source, target, source_port(number), port, payload)
    return ip(source, target, 17, body, number, ttl=ttl)


def echo(source: IPAddress, target: IPAddress, number: int, size: int = 0) -> bytes:
    """An echo request (RFC 792, RFC 4443); ``size`` is that of the whole IP packet, in
    bytes."""
    header = 20 if target.version == 4 else 40
    payload = b"tula doctor".ljust(max(size - header - 8, 16), b".")
    head = struct.pack("!BBHHH", 8 if target.version == 4 else 128, 0, 0, IDENT, number & 0xFFFF)
    if target.version == 4:
        return ip(source, target, 1, _summed(head + payload, 2), number)
    body = _summed(head + payload, 2, pseudo(source, target, 58, 8 + len(payload)))
    return ip(source, target, 58, body, number)


def encapsulated(
    packet: bytes,
    tunnel: Tunnel,
    local: IPAddress,
    remote: IPAddress,
    mac: bytes,
    settings: TunnelSettings,
    number: int,
) -> bytes:
    """The packet inside a tunnel of that kind; ``mac`` is the inner destination for VXLAN."""
    version = packet[0] >> 4
    ethertype = 0x0800 if version == 4 else 0x86DD
    inside = 4 if version == 4 else 41
    if tunnel is Tunnel.IPIP:
        return ip(local, remote, inside, packet, number, fragments=True)
    if tunnel is Tunnel.GRE:
        return ip(local, remote, 47, struct.pack("!HH", 0, ethertype) + packet, number, True)
    if tunnel is Tunnel.GUE:
        payload, port = struct.pack("!BBH", 0, inside, 0) + packet, settings.gue_port
    else:
        header = struct.pack("!II", 0x08000000, settings.vxlan_id << 8)
        payload = header + mac + _OUR_MAC + struct.pack("!H", ethertype) + packet
        port = settings.vxlan_port
    body = udp(local, remote, source_port(number), port, payload)
    return ip(local, remote, 17, body, number, fragments=True)


def arp_request(mac: bytes, source: IPAddress, target: IPAddress) -> bytes:
    """An ARP request (RFC 826)."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return head + mac + source.packed + bytes(6) + target.packed


def solicitation(mac: bytes, source: IPAddress, target: IPAddress) -> bytes:
    """A neighbour solicitation (RFC 4861, section 4.3)."""
    group = solicited_node(target)
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target.packed + struct.pack("!BB", 1, 1) + mac
    body = _summed(body, 2, pseudo(source, group, 58, len(body)))
    # Hop limit 255 proves that no router forwarded it.
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255)
    return header + source.packed + group.packed + body


def solicited_node(target: IPAddress) -> IPv6Address:
    """The solicited-node multicast address (RFC 4291, section 2.7.1)."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)


def ip(
    source: IPAddress,
    target: IPAddress,
    protocol: int,
    payload: bytes,
    number: int,
    fragments: bool = False,
    ttl: int = 0,
) -> bytes:
    """A payload behind an IPv4 or IPv6 header, with "don't fragment" unless ``fragments``.

    ``ttl``: the hop limit, an ordinary one if it is 0.
    """
    ttl = ttl or _TTL
    if target.version == 4:
        head = struct.pack(
            "!BBHHHBBH", 0x45, 0, 20 + len(payload), number & 0xFFFF,
            0 if fragments else _DF, ttl, protocol, 0,
        )  # fmt: skip
        return _summed(head + source.packed + target.packed, 10) + payload
    head = struct.pack("!IHBB", 6 << 28 | number & 0xFFFFF, len(payload), protocol, ttl)
    return head + source.packed + target.packed + payload


def udp(source: IPAddress, target: IPAddress, sport: int, dport: int, payload: bytes) -> bytes:
    """A UDP header with its checksum, and the payload."""
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    body = _summed(head + payload, 6, pseudo(source, target, 17, 8 + len(payload)))
    # A checksum of zero is sent as all ones: zero means "no checksum" (RFC 768).
    return body if body[6:8] != b"\0\0" else body[:6] + b"\xff\xff" + body[8:]


def pseudo(source: IPAddress, target: IPAddress, protocol: int, length: int) -> bytes:
    """The pseudo header that transport checksums include (RFC 9293, RFC 8200)."""
    tail = "!BBH" if target.version == 4 else "!II"
    numbers = (0, protocol, length) if target.version == 4 else (length, protocol)
    return source.packed + target.packed + struct.pack(tail, *numbers)


def _tcp(source: IPAddress, target: IPAddress, port: int, number: int, flags: int) -> bytes:
    options = struct.pack("!BBH", 2, 4, _MSS) if flags == 0x02 else b""
    sequence = _SEQUENCE + (flags == 0x04)
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack(
        "!HHIIBBHHH", source_port(number), port, sequence, 0, offset, flags, 64240, 0, 0
    )
    length = len(head) + len(options)
    return _summed(head + options, 16, pseudo(source, target, 6, length))


def _summed(data: bytes, at: int, before: bytes = b"") -> bytes:
    """``data`` with the checksum (RFC 1071) of ``before`` and ``data`` written at ``at``."""
    whole = before + data
    if len(whole) % 2:
        whole += b"\0"
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack("!H", ~total & 0xFFFF) + data[at + 2 :]
