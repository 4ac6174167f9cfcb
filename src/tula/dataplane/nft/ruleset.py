"""The values of the nftables data path: what Tula's table holds, or must hold.

Both sides of a difference are made of these, in the kernel's own terms: names, packed
addresses, marks, interface indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

from tula.model.count import Count

TABLE = "tula"
FAMILY = "netdev"

Key = int | tuple[bytes, int] | tuple[bytes, int, int, int]
Value = int | str | tuple[bytes, str] | None
"""None for the members of a set."""
Elements = Mapping[Key, Value]


class Kind(StrEnum):
    """The maps by what they hold; a map's name is its kind, then what tells it from others."""

    SLOTS = "slots"
    """hash slot: backend number, or backend id where one service uses the table"""
    VIA4 = "via4"
    """backend id: (packed IPv4 next hop, the service's name, and behind a space Backend.key where
    the hop's address is none of the backend's); counts packets and bytes"""
    VIA6 = "via6"
    DEVICE4 = "device4"
    """backend id: interface index of its next hop"""
    DEVICE6 = "device6"
    WIDE = "wide"
    """a set: the ids of backends that have a device for large IPv4 packets"""
    BIG4 = "big4"
    """backend id: interface index of that device"""
    EXACT4 = "exact4"
    """(packed VIP, protocol, port, port): the service's chain"""
    EXACT6 = "exact6"
    RANGE4 = "range4"
    """(packed VIP, protocol, first port, last port): the service's chain"""
    RANGE6 = "range6"
    ANY4 = "any4"
    """(packed VIP, protocol): the service's chain"""
    ANY6 = "any6"
    ICMPEXACT4 = "icmpexact4"
    """like EXACT4, for the flow inside an ICMP error: the chain that chooses by that flow"""
    ICMPEXACT6 = "icmpexact6"
    ICMPRANGE4 = "icmprange4"
    ICMPRANGE6 = "icmprange6"
    ICMPANY4 = "icmpany4"
    ICMPANY6 = "icmpany6"
    TURNS = "turns"
    """turn: backend number or id, for schedulers that take turns"""
    OPEN = "open"
    """a set: the ids of backends that take new connections"""
    TCP4 = "tcp4"
    """client, port, VIP, port: backend id, filled by packets"""
    TCP6 = "tcp6"
    CLOSED4 = "closed4"
    """like TCP4, of connections whose client said FIN or RST"""
    CLOSED6 = "closed6"
    UDP4 = "udp4"
    UDP6 = "udp6"
    HOTTCP4 = "hottcp4"
    """those of TCP4 that were prolonged a short while ago"""
    HOTTCP6 = "hottcp6"
    HOTUDP4 = "hotudp4"
    HOTUDP6 = "hotudp6"
    FRAG4 = "frag4"
    """source, destination, datagram: backend id, filled by first fragments"""
    FRAG6 = "frag6"
    PROBED = "probed"
    """backend id as a priority: backend id as a mark. nft 1.0.6 takes the one for a classid and
    the other for a mark, and gives neither to the other without a map"""
    PROBE4 = "probe4"
    """backend id: (packed IPv4 next hop, nothing), of backends that are out of service too"""
    PROBE6 = "probe6"
    PROBEDEVICE4 = "probedevice4"
    """backend id: interface index of that next hop"""
    PROBEDEVICE6 = "probedevice6"

    @property
    def is_set(self) -> bool:
        """Whether it has members and no values."""
        return self in (Kind.OPEN, Kind.WIDE)

    @property
    def counts(self) -> bool:
        """Whether every element counts the packets that found it."""
        return self in (Kind.VIA4, Kind.VIA6)

    @property
    def numbered(self) -> bool:
        """Whether there are several of this kind, told apart by a number."""
        return self in (Kind.SLOTS, Kind.TURNS)

    @property
    def dynamic(self) -> bool:
        """Whether packets fill it. Its elements are not compared, and never read as a whole."""
        return self in _DYNAMIC

    @property
    def flows(self) -> bool:
        """Whether it holds the connections that are open, each once."""
        return self in (Kind.TCP4, Kind.TCP6, Kind.UDP4, Kind.UDP6)

    @property
    def dispatches(self) -> bool:
        """Whether it leads packets to services' chains."""
        return self in _DISPATCH

    @property
    def hot(self) -> bool:
        """Whether it only repeats another's entries: emptying it costs time, and no flow."""
        return self.value.startswith("hot")


_DISPATCH = frozenset(
    {
        *(Kind.EXACT4, Kind.RANGE4, Kind.ANY4),
        *(Kind.EXACT6, Kind.RANGE6, Kind.ANY6),
    }
)
_DYNAMIC = frozenset(
    {
        *(Kind.TCP4, Kind.CLOSED4, Kind.UDP4, Kind.FRAG4),
        *(Kind.TCP6, Kind.CLOSED6, Kind.UDP6, Kind.FRAG6),
        *(Kind.HOTTCP4, Kind.HOTUDP4, Kind.HOTTCP6, Kind.HOTUDP6),
    }
)


@dataclass(frozen=True, slots=True)
class MapName:
    """A map's name, which holds its whole definition: one of another size is another map.

    ``number`` is a Maglev table's; ``size`` is the most elements it takes, 0 for no limit.
    """

    kind: Kind
    size: int = 0
    number: int = 0
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = self.kind.value
        if self.number:
            text = f"{text}_{self.number}"
        if self.size:
            text = f"{text}_{self.size}"
        object.__setattr__(self, "_text", text)

    def __str__(self) -> str:
        return self._text

    @classmethod
    @lru_cache(maxsize=1 << 13)
    def parse(cls, name: str) -> MapName | None:
        """The parts of a name that ``str`` made; None for any other name."""
        head, *rest = name.split("_")
        try:
            kind = Kind(head)
            numbers = [int(part) for part in rest]
        except ValueError:
            return None
        if kind.numbered:
            parsed = cls(kind, numbers[1], numbers[0]) if len(numbers) == 2 else None
        else:
            parsed = cls(kind, *numbers) if len(numbers) < 2 else None
        return parsed if parsed is not None and str(parsed) == name else None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; known in the kernel by the digest in its comment, whatever nft prints of it.

    ``pinned`` is what the text means at the time of loading beyond its letters (interface
    indices): a rule whose meaning changed is another rule.
    """

    digest: str
    text: str = field(default="", compare=False)

    @classmethod
    @lru_cache(maxsize=1 << 16)
    def of(cls, text: str, pinned: str = "") -> Rule:
        """The rule with this text."""
        return cls(blake2b(f"{text}|{pinned}".encode(), digest_size=8).hexdigest(), text)


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; a base chain at the ingress of ``device``, or a plain one when that is empty.

    ``foreign`` says what no base chain of Tula's has: another hook, priority or policy.
    """

    rules: tuple[Rule, ...] = ()
    device: str = ""
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """What stands in the table in a form that Tula does not give to anything.

    Foreign chains, rules and counters are not listed here: they show in the Ruleset itself.
    """

    maps: frozenset[str] = frozenset()
    """Sets and maps whose name or definition is none of Tula's."""
    elements: frozenset[str] = frozenset()
    """Maps of Tula's in which some elements cannot be read."""
    objects: frozenset[tuple[int, str]] = frozenset()
    """Named objects that are no counters: NFT_OBJECT_* and name."""
    dormant: bool = False
    """Whether the table's flag ``dormant`` keeps packets from all of its chains."""

    def __bool__(self) -> bool:
        return self != Foreign()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The content of Tula's table: maps and chains by name, and the names of its counters."""

    maps: Mapping[str, Elements] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()
    foreign: Foreign = field(default_factory=Foreign)
    counts: Mapping[str, Mapping[Key, Count]] = field(default_factory=dict, compare=False)
    """What the elements of counting maps had counted when they were read, by the map's name."""
