"""How the kernel knows each kind of map: by this, one that Tula did not make is told from its own.

Of the types only those with a name are compared, the bare integers of ``typeof`` are not: what
nft calls those may change, and a map that is taken for a foreign one loses its connections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from tula.dataplane.nft.ruleset import Kind, MapName

INTERVAL, MAP, TIMEOUT, EVAL, OBJECT = 0x4, 0x8, 0x10, 0x20, 0x40
"""NFT_SET_* (include/uapi/linux/netfilter/nf_tables.h); EVAL is nft's flag ``dynamic``."""
COMPARED = INTERVAL | MAP | TIMEOUT | EVAL | OBJECT
"""The others follow from these, or differ between versions of nft (CONCAT, EXPR)."""

_TYPE_BITS = 6
_INTEGER, _IPV4, _IPV6, _PROTOCOL, _PORT, _MARK, _DEVICE, _CLASS = 4, 7, 8, 12, 13, 19, 20, 23
_MAC = 9
"""TYPE_* of nft (include/datatype.h): the kernel keeps them for whoever lists the map."""
_VERDICT = 0xFFFFFF00
"""NFT_DATA_VERDICT."""
_VERDICT_LENGTH = 16
_LENGTHS = {_INTEGER: 4, _IPV4: 4, _IPV6: 16, _PROTOCOL: 4, _PORT: 4, _MARK: 4, _DEVICE: 4}
_LENGTHS |= {_CLASS: 4, _MAC: 6}

_DEVICES = (Kind.DEVICE4, Kind.DEVICE6, Kind.LARGE_DEVICE4, Kind.PROBE_DEVICE4, Kind.PROBE_DEVICE6)
_HOPS4, _HOPS6 = (Kind.NEXTHOP4, Kind.PROBE_NEXTHOP4), (Kind.NEXTHOP6, Kind.PROBE_NEXTHOP6)
_TO_MARKS = (
    *(Kind.SLOTS, Kind.WRR, Kind.PROBE_BACKEND, Kind.LEARNED_AS),
    *(Kind.OWN4, Kind.OWN6),
)
_INTERVALS = (
    Kind.SERVICE_RANGE4,
    Kind.SERVICE_RANGE6,
    Kind.ICMP_SERVICE_RANGE4,
    Kind.ICMP_SERVICE_RANGE6,
)


@dataclass(frozen=True, slots=True)
class Definition:
    """A set or map as netlink tells it. Lengths are in bytes; types are nft's, a list for a
    concatenation; ``other`` says what no map of Tula's has, such as a timeout for all elements."""

    flags: int
    key_length: int
    data_length: int = 0
    size: int = 0
    counter: bool = False
    key_types: tuple[int, ...] = ()
    data_types: tuple[int, ...] = ()
    other: str = ""

    def fits(self, found: Definition) -> bool:
        """Whether ``found`` is a map of this definition."""
        typed = replace(found, key_types=self.key_types, data_types=self.data_types)
        return (
            typed == self
            and _alike(self.key_types, found.key_types)
            and _alike(self.data_types, found.data_types)
        )


def split_types(number: int) -> tuple[int, ...]:
    """The types of a concatenation's fields; nft packs six bits of each into one number."""
    if number == _VERDICT:
        return (number,)
    types = []
    while number:
        types.append(number & (1 << _TYPE_BITS) - 1)
        number >>= _TYPE_BITS
    return tuple(reversed(types))


@lru_cache(maxsize=1 << 13)
def definition(name: MapName) -> Definition:
    """How Tula's map of this name is defined."""
    kind = name.kind
    flags = 0 if kind.is_set else MAP
    if kind in _INTERVALS or kind.prefixes:
        flags |= INTERVAL
    if kind.dynamic:
        flags |= TIMEOUT | EVAL
    data = _data_type(kind)
    return Definition(
        flags,
        key_length(kind),
        {0: 0, _VERDICT: _VERDICT_LENGTH}.get(data, _LENGTHS.get(data, 0)),
        name.size,
        kind.counts,
        _key_types(kind),
        (data,) if data else (),
    )


@lru_cache
def key_length(kind: Kind) -> int:
    """The bytes of a key; each field of several is padded to a multiple of 4."""
    if kind is Kind.CLIENTS6 or (kind.startswith("icmp") and kind.endswith("6")):
        # A field without a name of 16 bytes.
        return 12 + sum(_LENGTHS[each] for each in _key_types(kind))
    if kind in (Kind.ALLOW6, Kind.DENY6, Kind.CLIENT_RATE6):
        return 8 if kind is Kind.CLIENT_RATE6 else 16
    return sum(_LENGTHS[each] for each in _key_types(kind))


def _key_types(kind: Kind) -> tuple[int, ...]:
    address = _IPV4 if kind.endswith("4") else _IPV6
    match kind:
        case Kind.SERVICE_PORT4 | Kind.SERVICE_PORT6 | Kind.SERVICE_RANGE4 | Kind.SERVICE_RANGE6:
            return address, _PROTOCOL, _PORT
        case Kind.SERVICE_ANY4 | Kind.SERVICE_ANY6 | Kind.FORWARDED4 | Kind.FORWARDED6:
            return address, _PROTOCOL
        case (
            Kind.ICMP_SERVICE_PORT4
            | Kind.ICMP_SERVICE_PORT6
            | Kind.ICMP_SERVICE_RANGE4
            | Kind.ICMP_SERVICE_RANGE6
        ):
            return (_INTEGER,) * 3
        case Kind.ICMP_SERVICE_ANY4 | Kind.ICMP_SERVICE_ANY6:
            return (_INTEGER,) * 2
        case Kind.TCP4 | Kind.CLOSED4 | Kind.UDP4 | Kind.SAMPLE4:
            return (_INTEGER,) * 4
        case Kind.HOT_TCP4 | Kind.HOT_UDP4:
            return (_INTEGER,) * 3
        case Kind.TCP6 | Kind.CLOSED6 | Kind.UDP6 | Kind.SAMPLE6:
            return (_INTEGER,) * 2
        case Kind.HOT_TCP6 | Kind.HOT_UDP6:
            return (_INTEGER,) * 2
        case Kind.FRAG4:
            return _IPV4, _IPV4, _INTEGER, _PROTOCOL
        case Kind.SLOTS | Kind.WRR | Kind.FRAG6 | Kind.CLIENTS4 | Kind.CLIENTS6:
            return (_INTEGER,)
        case Kind.CLIENT_RATE4 | Kind.CLIENT_RATE6:
            return (_INTEGER,)
        case Kind.ALLOW4 | Kind.ALLOW6 | Kind.DENY4 | Kind.DENY6:
            return (_INTEGER,)
        case Kind.PROBE_BACKEND:
            return (_CLASS,)
        case Kind.AS_HASHED:
            return _MARK, _CLASS
        case Kind.LEARNED_AS:
            return (_MAC,)
        case _:
            return (_MARK,)


def _data_type(kind: Kind) -> int:
    if kind.is_set:
        return 0
    if kind in _DEVICES:
        return _DEVICE
    if kind in (Kind.SENT_AS, Kind.HASH_CHOICE):
        return _MAC if kind is Kind.SENT_AS else _CLASS
    if kind in _HOPS4:
        return _IPV4
    if kind in _HOPS6:
        return _IPV6
    if kind.dynamic or kind in _TO_MARKS:
        return _MARK
    return _VERDICT


def _alike(wanted: tuple[int, ...], found: tuple[int, ...]) -> bool:
    if set(wanted) == {_INTEGER}:
        return True
    return len(wanted) == len(found) and all(
        a == b or _INTEGER in (a, b) for a, b in zip(wanted, found, strict=True)
    )
