"""The elements of each kind of map: as nft's text, and as the kernel's bytes.

Keys of several fields are concatenations: each field padded to a multiple of 4 bytes, addresses
and ports in network order, marks and indices in the machine's (nf_tables.h, nft_payload.c).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_ntop

from tula.dataplane.nft.definition import key_length
from tula.dataplane.nft.packet_fields import (
    CLIENT_FIELD,
    CLIENT_GROUP,
    FLOW_KEY4,
    FRAGMENT_KEY4,
    HOT_KEY4,
    INNER,
)
from tula.dataplane.nft.ruleset import Key, Kind, MapName, Value
from tula.model.prefixes import ends
from tula.model.stats import Count

_NUMBER = "numgen inc mod 4294967295"
_SLOT_TYPE = "typeof numgen inc mod {size} : meta mark"
_DISPATCH = "typeof {ip} daddr . meta l4proto . th dport : verdict"
_ICMP = {
    version: f"typeof {inner[0].vip} . {inner[0].port} : verdict"
    for version, inner in INNER.items()
}
# "typeof jhash ..." would fit as well, but listing such a map crashes nft 1.0.6.
_TYPES = {
    Kind.SLOTS: _SLOT_TYPE,
    Kind.NEXTHOP4: "type mark : ipv4_addr",
    Kind.NEXTHOP6: "type mark : ipv6_addr",
    Kind.OWN4: "type mark : mark",
    Kind.OWN6: "type mark : mark",
    Kind.DEVICE4: "type mark : iface_index",
    Kind.DEVICE6: "type mark : iface_index",
    Kind.LARGE_DEVICE4: "type mark : iface_index",
    Kind.HAS_LARGE_DEVICE4: "type mark",
    Kind.SERVICE_PORT4: _DISPATCH.format(ip="ip"),
    Kind.SERVICE_PORT6: _DISPATCH.format(ip="ip6"),
    Kind.SERVICE_RANGE4: _DISPATCH.format(ip="ip"),
    Kind.SERVICE_RANGE6: _DISPATCH.format(ip="ip6"),
    Kind.SERVICE_ANY4: "typeof ip daddr . meta l4proto : verdict",
    Kind.SERVICE_ANY6: "typeof ip6 daddr . meta l4proto : verdict",
    Kind.ICMP_SERVICE_PORT4: _ICMP[4],
    Kind.ICMP_SERVICE_PORT6: _ICMP[6],
    Kind.ICMP_SERVICE_RANGE4: _ICMP[4],
    Kind.ICMP_SERVICE_RANGE6: _ICMP[6],
    Kind.ICMP_SERVICE_ANY4: f"typeof {INNER[4][0].vip} : verdict",
    Kind.ICMP_SERVICE_ANY6: f"typeof {INNER[6][0].vip} : verdict",
    Kind.WRR: _SLOT_TYPE,
    Kind.ACCEPTS_NEW_FLOWS: "type mark",
    Kind.TCP4: f"typeof {FLOW_KEY4} : meta mark",
    Kind.TCP6: f"typeof {_NUMBER} . {_NUMBER} : meta mark",
    Kind.CLOSED4: f"typeof {FLOW_KEY4} : meta mark",
    Kind.CLOSED6: f"typeof {_NUMBER} . {_NUMBER} : meta mark",
    Kind.UDP4: f"typeof {FLOW_KEY4} : meta mark",
    Kind.UDP6: f"typeof {_NUMBER} . {_NUMBER} : meta mark",
    Kind.SAMPLE4: f"typeof {FLOW_KEY4} : meta mark",
    Kind.SAMPLE6: f"typeof {_NUMBER} . {_NUMBER} : meta mark",
    Kind.HOT_TCP4: f"typeof {HOT_KEY4} : meta mark",
    Kind.HOT_TCP6: f"typeof {_NUMBER} . @th,0,32 : meta mark",
    Kind.HOT_UDP4: f"typeof {HOT_KEY4} : meta mark",
    Kind.HOT_UDP6: f"typeof {_NUMBER} . @th,0,32 : meta mark",
    Kind.FRAG4: f"typeof {FRAGMENT_KEY4} : meta mark",
    Kind.FRAG6: f"typeof {_NUMBER} : meta mark",
    Kind.PROBE_BACKEND: "type classid : mark",
    Kind.PROBE_NEXTHOP4: "type mark : ipv4_addr",
    Kind.PROBE_NEXTHOP6: "type mark : ipv6_addr",
    Kind.PROBE_DEVICE4: "type mark : iface_index",
    Kind.PROBE_DEVICE6: "type mark : iface_index",
    Kind.PROBE_OWN: "type mark",
    Kind.FORWARDED4: "typeof ip daddr . meta l4proto : verdict",
    Kind.FORWARDED6: "typeof ip6 daddr . meta l4proto : verdict",
    Kind.SENT_AS: "type mark : ether_addr",
    Kind.LEARNED_AS: "type ether_addr : mark",
    Kind.HASH_CHOICE: "type mark : classid",
    Kind.AS_HASHED: "typeof meta mark . meta priority",
    Kind.CLIENTS4: f"typeof {CLIENT_FIELD[4]} : meta mark",
    Kind.CLIENTS6: f"typeof {CLIENT_FIELD[6]} : meta mark",
    Kind.KEEPS_CLIENTS: "type mark",
    Kind.LEARNS_CLIENT4: "type mark : verdict",
    Kind.LEARNS_CLIENT6: "type mark : verdict",
    # Fields without a name: the client of a packet, and the one inside an ICMP error, are asked for
    # in the same set.
    Kind.ALLOW4: "typeof @nh,96,32",
    Kind.ALLOW6: "typeof @nh,64,128",
    Kind.DENY4: "typeof @nh,96,32",
    Kind.DENY6: "typeof @nh,64,128",
    Kind.CLIENT_RATE4: f"typeof {CLIENT_GROUP[4]}",
    Kind.CLIENT_RATE6: f"typeof {CLIENT_GROUP[6]}",
}
_OWN = (Kind.OWN4, Kind.OWN6)
_NEXTHOPS = (Kind.NEXTHOP4, Kind.NEXTHOP6, Kind.PROBE_NEXTHOP4, Kind.PROBE_NEXTHOP6, *_OWN)
_NUMBERS = (
    *(Kind.DEVICE4, Kind.DEVICE6, Kind.LARGE_DEVICE4),
    *(Kind.PROBE_BACKEND, Kind.PROBE_DEVICE4, Kind.PROBE_DEVICE6, Kind.HASH_CHOICE),
)
_RANGES = (
    *(Kind.SERVICE_RANGE4, Kind.ICMP_SERVICE_RANGE4),
    *(Kind.SERVICE_RANGE6, Kind.ICMP_SERVICE_RANGE6),
)
_LEARNS_CLIENT = (Kind.LEARNS_CLIENT4, Kind.LEARNS_CLIENT6)
_ANY_PORT = (
    *(Kind.SERVICE_ANY4, Kind.SERVICE_ANY6, Kind.ICMP_SERVICE_ANY4, Kind.ICMP_SERVICE_ANY6),
    *(Kind.FORWARDED4, Kind.FORWARDED6),
)


@dataclass(frozen=True, slots=True)
class RawElement:
    """An element as netlink tells it: ``data`` is the value's bytes, or the chain that a verdict
    goes to, empty for any other verdict."""

    key: bytes
    data: bytes | str
    key_end: bytes = b""
    comment: str = ""
    count: Count | None = None
    seconds: float | None = None
    """How long it still lives; None: for ever."""


def map_declaration(name: MapName) -> str:
    """The text between the braces of ``add map``."""
    parts = [_TYPES[name.kind].format(size=name.size)]
    # With a size and no timeout the kernel takes its fixed hash, the fastest for small keys.
    if name.size:
        parts.append(f"size {name.size}")
    if name.kind in _RANGES or name.kind.prefixes:
        parts.append("flags interval")
    if name.kind.dynamic:
        parts.append("flags dynamic,timeout")
    if name.kind.counts:
        parts.append("counter")
    return "; ".join(parts)


def element_text(kind: Kind, key: Key, value: Value, count: Count | None = None) -> str:
    """An element for ``add element``, with the count that it starts from."""
    text = key_text(kind, key)
    if value is None:
        return text
    if isinstance(value, tuple):
        address, owner = value
        counter = f" counter packets {count.packets} bytes {count.bytes}" if count else ""
        comment = f' comment "{owner}"' if owner else ""
        shown = f"{_native(address):#x}" if kind in _OWN else _address(address)
        return f"{text}{counter}{comment} : {shown}"
    if kind is Kind.SENT_AS and isinstance(value, int):
        return f"{text} : {_mac_text(value)}"
    return f"{text} : goto {value}" if isinstance(value, str) else f"{text} : {value}"


def key_text(kind: Kind, key: Key) -> str:
    """An element's key, as ``delete element`` takes it."""
    if isinstance(key, int):
        if kind.prefixes:
            first, last = ends(key, 4 if kind.endswith("4") else 6)
            return f"{first:#x}" if first == last else f"{first:#x}-{last:#x}"
        match kind:
            case Kind.AS_HASHED:
                return f"{key:#x} . {key:#x}"
            case Kind.LEARNED_AS:
                return _mac_text(key)
            case _:
                return str(key) if kind.numbered else f"{key:#x}"
    # The inner fields of an ICMP error have no type: nft takes numbers for them.
    icmp = kind.startswith("icmp")
    fields = ["0x" + key[0].hex() if icmp else _address(key[0]), str(key[1])]
    if len(key) == 4:
        first, last = key[2], key[3]
        fields.append(str(first) if first == last else f"{first}-{last}")
    return " . ".join(fields)


def decode_element(kind: Kind, raw: RawElement) -> tuple[Key, Value]:
    """The element that the kernel's bytes mean.

    Raises ValueError for what is none of this kind: somebody else put it there.
    """
    if len(raw.key) != key_length(kind) or (raw.key_end and kind not in _RANGES):
        raise ValueError(f"{kind}: no key of Tula's")  # such as "*", which has none
    match kind:
        case Kind.AS_HASHED:
            if raw.key[:4] != raw.key[4:]:
                raise ValueError(f"{kind}: no backend beside itself")
            return _native(raw.key[:4]), None
        case Kind.SENT_AS:
            return _native(raw.key), int.from_bytes(_bytes(raw.data), "big")
        case Kind.LEARNED_AS:
            return int.from_bytes(raw.key, "big"), _native(_bytes(raw.data))
    if kind.is_set:
        return _native(raw.key), None
    if kind.numbered or kind in _NUMBERS:
        return _native(raw.key), _native(_bytes(raw.data))
    if kind in _NEXTHOPS:
        return _native(raw.key), (_bytes(raw.data), raw.comment)
    if not isinstance(raw.data, str) or not raw.data:
        raise ValueError(f"{kind}: a chain to go to was expected, got {raw.data!r}")
    if kind in _LEARNS_CLIENT:
        return _native(raw.key), raw.data
    width = 4 if kind.endswith("4") else 16
    address = raw.key[:width]
    protocol = raw.key[width]
    if kind in _ANY_PORT:
        return (address, protocol), raw.data
    first = int.from_bytes(raw.key[width + 4 : width + 6], "big")
    last = int.from_bytes(raw.key_end[width + 4 : width + 6], "big") if raw.key_end else first
    return (address, protocol, first, last), raw.data


def encode_element(kind: Kind, key: Key, value: Value) -> RawElement:
    """The kernel's bytes for an element; the reverse of ``decode_element``.

    Raises ValueError for a kind that packets fill, whose elements are never written.
    """
    first, last = encode_key(kind, key)
    match value:
        case None:
            return RawElement(first, b"")
        case int():
            data = value.to_bytes(*((6, "big") if kind is Kind.SENT_AS else (4, sys.byteorder)))
            return RawElement(first, data)
        case str():
            return RawElement(first, value, last)
        case (hop, owner):
            return RawElement(first, hop, comment=owner)


def encode_key(kind: Kind, key: Key) -> tuple[bytes, bytes]:
    """An element's key; and the last key of a range, else empty."""
    if kind.dynamic:
        raise ValueError(f"{kind}: packets fill it")
    if isinstance(key, int):
        if kind is Kind.LEARNED_AS:
            return key.to_bytes(6, "big"), b""
        number = key.to_bytes(4, sys.byteorder)
        return number * 2 if kind is Kind.AS_HASHED else number, b""
    fields = key[0] + bytes((key[1], 0, 0, 0))
    if len(key) == 2:
        return fields, b""
    first, last = (fields + port.to_bytes(2, "big") + bytes(2) for port in key[2:])
    return first, last if kind in _RANGES else b""


def _address(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def _mac_text(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


def _native(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _bytes(data: bytes | str) -> bytes:
    if isinstance(data, str):
        raise ValueError(f"a value was expected, got the verdict {data!r}")
    return data
