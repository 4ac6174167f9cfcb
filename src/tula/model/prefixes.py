"""Lists of prefixes that may hold a hundred thousand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPNetwork = IPv4Network | IPv6Network
LENGTH_BITS = 8
_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class PrefixList:
    """Which addresses are listed: sorted, and without what another prefix of the list contains.

    By IP version and as numbers, since a network as an object takes ten times the memory: the
    prefix's address above the ``LENGTH_BITS`` of its length.
    """

    v4: tuple[int, ...] = ()
    v6: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, networks: Iterable[IPNetwork]) -> PrefixList:
        """The list of these, in any order; what is given twice is there once."""
        keys: dict[int, list[int]] = {4: [], 6: []}
        for network in networks:
            number = int(network.network_address) << LENGTH_BITS | network.prefixlen
            keys[network.version].append(number)
        return cls.of_keys(keys[4], keys[6])

    @classmethod
    def of_keys(cls, v4: Iterable[int], v6: Iterable[int]) -> PrefixList:
        """The list of these numbers, in any order."""
        return cls(_outermost(v4, 32), _outermost(v6, 128))

    def keys(self, version: int) -> tuple[int, ...]:
        """The prefixes of IP version 4 or 6."""
        return self.v4 if version == 4 else self.v6

    def find(self, address: IPv4Address | IPv6Address) -> IPNetwork | None:
        """The prefix that contains an address."""
        keys, bits = self.keys(address.version), _BITS[address.version]
        number = int(address)
        at = bisect_right(keys, number << LENGTH_BITS | bits)
        if not at:
            return None
        first, last = ends(keys[at - 1], address.version)
        return _network(keys[at - 1], address.version) if first <= number <= last else None

    def without(self, other: PrefixList) -> PrefixList:
        """The prefixes that ``other`` does not have, as they are written there."""
        gone4, gone6 = set(other.v4), set(other.v6)
        return PrefixList(
            tuple(key for key in self.v4 if key not in gone4),
            tuple(key for key in self.v6 if key not in gone6),
        )

    def __iter__(self) -> Iterator[IPNetwork]:
        yield from (_network(key, 4) for key in self.v4)
        yield from (_network(key, 6) for key in self.v6)

    def __len__(self) -> int:
        return len(self.v4) + len(self.v6)


def ends(key: int, version: int) -> tuple[int, int]:
    """The first and the last address of a prefix, as numbers."""
    free = _BITS[version] - (key & (1 << LENGTH_BITS) - 1)
    first = key >> LENGTH_BITS
    return first, first | (1 << free) - 1


def _network(key: int, version: int) -> IPNetwork:
    packed = (key >> LENGTH_BITS).to_bytes(_BITS[version] // 8, "big")
    return ip_network((packed, key & (1 << LENGTH_BITS) - 1))


def _outermost(keys: Iterable[int], bits: int) -> tuple[int, ...]:
    """Sorted by address, the shorter prefix first: what contains one stands before it."""
    found: list[int] = []
    last = -1
    mask = (1 << LENGTH_BITS) - 1
    for key in sorted(keys):
        first = key >> LENGTH_BITS
        if first > last:
            found.append(key)
            last = first | (1 << bits - (key & mask)) - 1
    return tuple(found)
