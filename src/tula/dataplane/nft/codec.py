"""The elements of each kind of map: as nft's text, and as the kernel's bytes.

Keys of several fields are concatenations: each field padded to a multiple of 4 bytes, addresses
and ports in network order, marks and indices in the machine's (nf_tables.h, nft_payload.c).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop

from tula.dataplane.nft.ruleset import Count, Key, Kind, MapName, Value

_SLOT_TYPE = "typeof numgen inc mod {size} : meta mark"
_DISPATCH = "typeof {ip} daddr . meta l4proto . th dport : verdict"
# "typeof jhash ..." would fit as well, but listing such a map crashes nft 1.0.6.
_TYPES = {
    Kind.SLOTS: _SLOT_TYPE,
    Kind.VIA4: "type mark : ipv4_addr",
    Kind.VIA6: "type mark : ipv6_addr",
    Kind.DEVICE: "type mark : iface_index",
    Kind.EXACT4: _DISPATCH.format(ip="ip"),
    Kind.EXACT6: _DISPATCH.format(ip="ip6"),
    Kind.RANGE4: _DISPATCH.format(ip="ip"),
    Kind.RANGE6: _DISPATCH.format(ip="ip6"),
    Kind.ANY4: "typeof ip daddr . meta l4proto : verdict",
    Kind.ANY6: "typeof ip6 daddr . meta l4proto : verdict",
}
_RANGES = (Kind.RANGE4, Kind.RANGE6)


@dataclass(frozen=True, slots=True)
class RawElement:
    """An element as netlink tells it: ``data`` is the value's bytes, or a verdict's chain."""

    key: bytes
    data: bytes | str
    key_end: bytes = b""
    comment: str = ""
    count: Count | None = None


def map_declaration(name: MapName) -> str:
    """What stands between the braces of ``add map``."""
    parts = [_TYPES[name.kind].format(size=name.size)]
    # With a size and no timeout the kernel takes its fixed hash, the fastest for small keys.
    if name.size:
        parts.append(f"size {name.size}")
    if name.kind in _RANGES:
        parts.append("flags interval")
    if name.kind.counts:
        parts.append("counter")
    return "; ".join(parts)


def element_text(kind: Kind, key: Key, value: Value, count: Count | None = None) -> str:
    """An element of ``add element``, with the count that it starts from."""
    text = key_text(kind, key)
    if kind.counts:
        assert isinstance(value, tuple)
        address, owner = value
        counter = f" counter packets {count.packets} bytes {count.bytes}" if count else ""
        return f'{text}{counter} comment "{owner}" : {_address(address)}'
    return f"{text} : goto {value}" if isinstance(value, str) else f"{text} : {value}"


def key_text(kind: Kind, key: Key) -> str:
    """An element's key, enough to delete it."""
    if isinstance(key, int):
        return f"{key:#x}" if kind is not Kind.SLOTS else str(key)
    fields = [_address(key[0]), str(key[1])]
    if len(key) == 4:
        first, last = key[2], key[3]
        fields.append(str(first) if first == last else f"{first}-{last}")
    return " . ".join(fields)


def decode_element(kind: Kind, raw: RawElement) -> tuple[Key, Value]:
    """The element that the kernel's bytes mean.

    Raises ValueError for bytes that are none of this kind.
    """
    if kind in (Kind.SLOTS, Kind.DEVICE):
        return _native(raw.key), _native(_bytes(raw.data))
    if kind.counts:
        return _native(raw.key), (_bytes(raw.data), raw.comment)
    if not isinstance(raw.data, str):
        raise ValueError(f"{kind}: a verdict was expected, got {raw.data!r}")
    width = 4 if kind.endswith("4") else 16
    address = raw.key[:width]
    protocol = raw.key[width]
    if kind in (Kind.ANY4, Kind.ANY6):
        return (address, protocol), raw.data
    first = int.from_bytes(raw.key[width + 4 : width + 6], "big")
    last = int.from_bytes(raw.key_end[width + 4 : width + 6], "big") if raw.key_end else first
    return (address, protocol, first, last), raw.data


def _address(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _native(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        raise ValueError(f"a value was expected, got the verdict {data!r}")
    return data
