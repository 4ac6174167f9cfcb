"""Parses VRRP's adverts, of versions 3 (RFC 5798, section 5) and 2 (RFC 3768, section 5). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tula.model.config import IPAddress

VRRP = 112
"""The IP protocol."""
_ADVERTISEMENT = 1
_OLD, _NEW = 2, 3


@dataclass(frozen=True, slots=True)
class Advert:
    """One advert, by its sender; ``interval`` is in seconds, ``at`` of the machine's clock.

    ``addresses`` are those that its router has, ``authenticated`` only in version 2.
    ``outgoing``: this machine sent it.
    """

    source: IPAddress
    destination: IPAddress
    version: int
    id: int
    priority: int
    addresses: tuple[IPAddress, ...]
    interval: float
    authenticated: bool = False
    outgoing: bool = False
    at: float = 0.0

    @property
    def rank(self) -> tuple[int, int]:
        """Of two that are active, the one of lower rank has to yield (RFC 5798, section
        6.4.3)."""
        return self.priority, int(self.source)


def parse_advert(packet: bytes, outgoing: bool = False, at: float = 0.0) -> Advert | None:
    """The advert in an IP packet; None if it is none."""
    ends = _ip_header(packet)
    if ends is None:
        return None
    source, destination, body = ends
    if len(body) < 8 or body[0] & 0xF != _ADVERTISEMENT or body[0] >> 4 not in (_OLD, _NEW):
        return None
    version, size = body[0] >> 4, source.max_prefixlen // 8
    listed = body[8 : 8 + body[3] * size]
    if version == _OLD:
        interval = float(body[5])
    else:
        interval = (int.from_bytes(body[4:6], "big") & 0xFFF) / 100
    kind = IPv4Address if size == 4 else IPv6Address
    return Advert(
        source=source,
        destination=destination,
        version=version,
        id=body[1],
        priority=body[2],
        addresses=tuple(
            kind(listed[start : start + size]) for start in range(0, len(listed) - size + 1, size)
        ),
        interval=interval,
        authenticated=version == _OLD and body[4] != 0,
        outgoing=outgoing,
        at=at,
    )


def _ip_header(packet: bytes) -> tuple[IPAddress, IPAddress, bytes] | None:
    """Source, destination and payload of a packet of VRRP."""
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[9] == VRRP:
        ends = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        return *ends, packet[(packet[0] & 0xF) * 4 :]
    if len(packet) >= 40 and packet[0] >> 4 == 6 and packet[6] == VRRP:
        return IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), packet[40:]
    return None
