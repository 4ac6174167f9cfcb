"""Random IP packets: mostly almost right, so that they get far; and what may be forwarded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address
from typing import NamedTuple

LISTED = {6: (80,), 17: (53,)}
"""The ports of services by protocol, on every VIP."""
_PORTS = (80, 53, 0, 7777)
_EXTENSIONS = (0, 43, 44, 60, 51, 50, 135, 59)
_ICMP_ERRORS = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_LONGEST = 1400


class Places(NamedTuple):
    """Packed addresses to draw from, of one IP version; services are on ``vips``."""

    clients: Sequence[bytes]
    vips: Sequence[bytes]
    others: Sequence[bytes]


class RandomPackets:
    """Packets drawn from a seed."""

    def __init__(self, seed: int, places: dict[int, Places]) -> None:
        self._draw = random.Random(seed)
        self._places = places

    def frame(self, macs: bytes) -> bytes:
        """One frame for these MACs; at times with a tag, another type, or cut short."""
        draw = self._draw
        family = draw.choice((4, 6))
        data = self._ip(family)
        kind = b"\x08\x00" if family == 4 else b"\x86\xdd"
        if draw.random() < 0.03:
            kind = draw.choice((b"\x81\x00\0\x05" + kind, b"\x08\x00", b"\x86\xdd", b"\x88\xb5"))
        if draw.random() < 0.15:
            data = data[: draw.randrange(len(data) + 1)]
        return macs + kind + data[:_LONGEST]

    def _ip(self, family: int, inner: bool = False) -> bytes:
        return self._ip4(inner) if family == 4 else self._ip6(inner)

    def _ends(self, family: int, inner: bool) -> tuple[bytes, bytes]:
        draw, places = self._draw, self._places[family]
        far = draw.choice(places.vips if draw.random() < 0.8 else places.others)
        near = draw.choice(places.clients)
        return (far, near) if inner else (near, far)

    def _ip4(self, inner: bool) -> bytes:
        draw = self._draw
        source, destination = self._ends(4, inner)
        words = 5 if draw.random() < 0.8 else draw.randrange(16)
        options = draw.randbytes(max(0, words - 5) * 4)
        protocol = draw.choice((6, 17, 1)) if draw.random() < 0.93 else draw.randrange(256)
        part = 0 if draw.random() < 0.7 else draw.choice((0x2000, 0x2001, 0x0001, 0x4000, 0x00B9))
        if draw.random() < 0.02:
            part = draw.randrange(65536)
        body = self._transport(4, protocol, inner)
        length = 20 + len(options) + len(body)
        if draw.random() < 0.05:
            length = draw.randrange(65536)
        head = bytes([0x40 | words, draw.randrange(256)]) + length.to_bytes(2, "big")
        head += draw.randrange(8).to_bytes(2, "big") + part.to_bytes(2, "big")
        head += bytes([draw.choice((64, 2, 1, 0)), protocol])
        rest = source + destination + options
        return head + _checksum(head + rest) + rest + body

    def _ip6(self, inner: bool) -> bytes:
        draw = self._draw
        source, destination = self._ends(6, inner)
        protocol = draw.choice((6, 17, 58)) if draw.random() < 0.93 else draw.randrange(256)
        body = self._transport(6, protocol, inner)
        for _ in range(0 if draw.random() < 0.5 else draw.randrange(1, 5)):
            kind = draw.choice(_EXTENSIONS)
            body = self._extension(kind, protocol) + body
            protocol = kind
        label = draw.choice((0, 80, 53, draw.randrange(1 << 20)))
        length = len(body) if draw.random() < 0.95 else draw.randrange(65536)
        head = (6 << 28 | label).to_bytes(4, "big") + length.to_bytes(2, "big")
        return head + bytes([protocol, draw.choice((64, 1))]) + source + destination + body

    def _extension(self, kind: int, following: int) -> bytes:
        draw = self._draw
        if kind == 44:
            part = draw.choice((0, 1, 1, 8, 9, 0x5A8, draw.randrange(65536)))
            number = draw.randrange(8).to_bytes(4, "big")
            return bytes([following, 0]) + part.to_bytes(2, "big") + number
        units = draw.choice((0, 0, 0, 1, 2))
        padding = b"\1" + bytes([4 + 8 * units]) + bytes(4 + 8 * units)
        if draw.random() < 0.2:
            padding = draw.randbytes(6 + 8 * units)
            units = draw.choice((units, draw.randrange(256)))
        return bytes([following, units]) + padding

    def _port(self) -> bytes:
        draw = self._draw
        port = draw.choice(_PORTS) if draw.random() < 0.8 else draw.randrange(65536)
        return port.to_bytes(2, "big")

    def _transport(self, family: int, protocol: int, inner: bool) -> bytes:
        draw = self._draw
        payload = draw.randbytes(draw.choice((0, 1, 8, 40, 300)))
        if protocol in (6, 17):
            ports = [draw.randrange(1024, 65536).to_bytes(2, "big"), self._port()]
            body = b"".join(reversed(ports) if inner else ports)
            if protocol == 17:
                return body + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
            shape = bytes([draw.choice((0x50, 0x50, 0x80, draw.randrange(256)))])
            flags = bytes([draw.choice((2, 16, 18, 4, 1, draw.randrange(256)))])
            return body + draw.randbytes(8) + shape + flags + draw.randbytes(6) + payload
        if protocol in (1, 58) and not inner:
            error = draw.random() < 0.7
            kind = draw.choice(_ICMP_ERRORS[family]) if error else draw.randrange(256)
            quoted = self._ip(family, inner=True)
            return bytes([kind, draw.randrange(6)]) + draw.randbytes(6) + quoted
        return payload


def _checksum(header: bytes) -> bytes:
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def may_be_forwarded(data: bytes, places: dict[int, Places]) -> bool:
    """Whether an IP packet is for a service, a fragment for a VIP, or an ICMP error for one."""
    if data[0] >> 4 == 4:
        if data[16:20] not in places[4].vips:
            return False
        later = int.from_bytes(data[6:8], "big") & 0x1FFF
        return _wanted(4, data[9], data[(data[0] & 15) * 4 :], bool(later))
    if data[24:40] not in places[6].vips:
        return False
    following, at, later = data[6], 40, 0
    while following in (0, 43, 44, 60, 51, 135) and not later:
        if following == 44:
            size, later = 8, int.from_bytes(data[at + 2 : at + 4], "big") & 0xFFF8
        else:
            size = (data[at + 1] + 2) * 4 if following == 51 else (data[at + 1] + 1) * 8
        following, at = data[at], at + size
    return bool(later) or _wanted(6, following, data[at:], False)


def _wanted(family: int, protocol: int, body: bytes, later: bool) -> bool:
    if later:
        return protocol in LISTED
    if protocol in LISTED:
        return int.from_bytes(body[2:4], "big") in LISTED[protocol]
    return protocol == (1 if family == 4 else 58) and body[0] in _ICMP_ERRORS[family]


def packed(*addresses: str) -> list[bytes]:
    """Addresses as they stand in packets."""
    return [ip_address(address).packed for address in addresses]
