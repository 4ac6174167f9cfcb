"""The values of the nftables data path: what Tula's table holds, or must hold.

Both sides of a difference are made of these, in the kernel's own terms: names, packed
addresses, marks, interface indices.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b

from tula.model.stats import Count

TABLE = "tula"
FAMILY = "netdev"
PER_PACKET = "packet"
"""How the names of chains begin that schedule each packet by itself."""

_SMALLEST = 1024

Key = int | tuple[bytes, int] | tuple[bytes, int, int, int]
Value = int | str | tuple[bytes, str] | None
"""None for the members of a set."""
Elements = Mapping[Key, Value]


class Kind(StrEnum):
    """The maps by what they hold; a map's name is its kind, then its number and size.

    The names are what ``nft list`` shows. What they were in earlier schemas: ``schema.py``.
    """

    SLOTS = "slots"
    """slot of a Maglev table: backend number, or backend id where one service uses the table"""
    NEXTHOP4 = "nexthop4"
    """backend id: (packed IPv4 next hop, the service's name, followed by a space and Backend.key
    where the next hop's address is not one of the backend's); counts packets and bytes"""
    NEXTHOP6 = "nexthop6"
    OWN4 = "own4"
    """backend id: (LOCAL_MARK, the service's name, a space and Backend.key), of backends that are
    this machine; counts packets and bytes"""
    OWN6 = "own6"
    DEVICE4 = "device4"
    """backend id: index of the interface to its next hop"""
    DEVICE6 = "device6"
    HAS_LARGE_DEVICE4 = "has_large_device4"
    """a set: the ids of backends that have a second tunnel device, for large IPv4 packets"""
    LARGE_DEVICE4 = "large_device4"
    """backend id: index of that device"""
    SERVICE_PORT4 = "service_port4"
    """(packed VIP, protocol, port, port): the service's chain"""
    SERVICE_PORT6 = "service_port6"
    SERVICE_RANGE4 = "service_range4"
    """(packed VIP, protocol, first port, last port): the service's chain"""
    SERVICE_RANGE6 = "service_range6"
    SERVICE_ANY4 = "service_any4"
    """(packed VIP, protocol): the service's chain"""
    SERVICE_ANY6 = "service_any6"
    ICMP_SERVICE_PORT4 = "icmp_service_port4"
    """like SERVICE_PORT4, for the flow inside an ICMP error: the chain that chooses by that flow"""
    ICMP_SERVICE_PORT6 = "icmp_service_port6"
    ICMP_SERVICE_RANGE4 = "icmp_service_range4"
    ICMP_SERVICE_RANGE6 = "icmp_service_range6"
    ICMP_SERVICE_ANY4 = "icmp_service_any4"
    ICMP_SERVICE_ANY6 = "icmp_service_any6"
    WRR = "wrr"
    """position in a round: backend number or id, as in SLOTS; for (weighted) round robin and
    least-connections"""
    ACCEPTS_NEW_FLOWS = "accepts_new_flows"
    """a set: the ids of backends that accept new flows"""
    TCP4 = "tcp4"
    """client, port, VIP, port: backend id; filled by packets"""
    TCP6 = "tcp6"
    CLOSED4 = "closed4"
    """like TCP4, for connections whose client has sent FIN or RST"""
    CLOSED6 = "closed6"
    UDP4 = "udp4"
    UDP6 = "udp6"
    HOT_TCP4 = "hot_tcp4"
    """the flows of TCP4 whose entry was refreshed a short while ago"""
    HOT_TCP6 = "hot_tcp6"
    HOT_UDP4 = "hot_udp4"
    HOT_UDP6 = "hot_udp6"
    SAMPLE4 = "sample4"
    """some of the flows of TCP4 and UDP4, to be counted: see ``sample``"""
    SAMPLE6 = "sample6"
    FRAG4 = "frag4"
    """source, destination, datagram: backend id; filled by first fragments"""
    FRAG6 = "frag6"
    PROBE_BACKEND = "probe_backend"
    """backend id as a packet's priority: backend id as a mark. To nft 1.0.6 one is a classid and
    the other a mark, and it converts neither into the other without a map"""
    PROBE_NEXTHOP4 = "probe_nexthop4"
    """like NEXTHOP4, without counters and owners; backends that are out of service included"""
    PROBE_NEXTHOP6 = "probe_nexthop6"
    PROBE_DEVICE4 = "probe_device4"
    """backend id: index of the interface to that next hop"""
    PROBE_DEVICE6 = "probe_device6"
    PROBE_OWN = "probe_own"
    """a set: the ids of backends that are this machine, and are checked through the data path"""
    FORWARDED4 = "forwarded4"
    """(packed VIP, protocol) of what another balancer may send to this machine as its backend: the
    chain that accepts it"""
    FORWARDED6 = "forwarded6"
    SENT_AS = "sent_as"
    """backend id: the source MAC that tells other balancers of it"""
    LEARNED_AS = "learned_as"
    """that MAC: backend id"""
    HASH_CHOICE = "hash_choice"
    """backend id as a mark: backend id as a packet's priority; see PROBE_BACKEND"""
    AS_HASHED = "as_hashed"
    """a set: every backend id beside itself, as a mark and as a priority; the key is the id"""
    CLIENTS4 = "clients4"
    """a persistent client's masked address: backend id, of any service of the scope; filled by
    packets. One map for each scope, which it is labelled with"""
    CLIENTS6 = "clients6"
    KEEPS_CLIENTS = "keeps_clients"
    """a set: the ids of backends that get their persistent clients' new flows"""
    LEARNS_CLIENT4 = "learns_client4"
    """backend id: the chain that learns the client of a flow that another balancer tells of"""
    LEARNS_CLIENT6 = "learns_client6"
    ALLOW4 = "allow4"
    """a set: the prefixes whose clients may connect to a service, or to several with equal lists;
    the keys are those of PrefixList"""
    ALLOW6 = "allow6"
    DENY4 = "deny4"
    """a set: like ALLOW4, of those that may not"""
    DENY6 = "deny6"
    CLIENT_RATE4 = "client_rate4"
    """a set: the clients of a service that have opened connections just now, each with a limit;
    filled by packets"""
    CLIENT_RATE6 = "client_rate6"

    @property
    def is_set(self) -> bool:
        """Whether it is a set: keys without values."""
        return self in _SETS

    @property
    def counts(self) -> bool:
        """Whether every element counts the packets that it forwards."""
        return self in _COUNTING

    @property
    def numbered(self) -> bool:
        """Whether there are several of this kind, each with a number and a size."""
        return self in _NUMBERED

    @property
    def prefixes(self) -> bool:
        """Whether it is a set of prefixes. There are several, each with a number."""
        return self in _PREFIXES

    @property
    def labelled(self) -> bool:
        """Whether there are several of this kind, each with a label."""
        return self in (Kind.CLIENTS4, Kind.CLIENTS6)

    @property
    def dynamic(self) -> bool:
        """Whether packets fill it. Its elements are never compared, nor read as a whole."""
        return self in _DYNAMIC

    @property
    def flows(self) -> bool:
        """Whether it holds the open connections, each once."""
        return self in (Kind.TCP4, Kind.TCP6, Kind.UDP4, Kind.UDP6)

    @property
    def samples(self) -> bool:
        """Whether it holds some of the open connections, for all."""
        return self in (Kind.SAMPLE4, Kind.SAMPLE6)

    @property
    def dispatches(self) -> bool:
        """Whether it leads packets to services' chains."""
        return self in _DISPATCH

    @property
    def hot(self) -> bool:
        """Whether it only repeats another map's entries: emptying it costs time, but no flow."""
        return self.value.startswith("hot")


_PREFIXES = frozenset({Kind.ALLOW4, Kind.ALLOW6, Kind.DENY4, Kind.DENY6})
_SETS = _PREFIXES | {
    *(Kind.ACCEPTS_NEW_FLOWS, Kind.HAS_LARGE_DEVICE4, Kind.AS_HASHED, Kind.PROBE_OWN),
    *(Kind.KEEPS_CLIENTS, Kind.CLIENT_RATE4, Kind.CLIENT_RATE6),
}
_NUMBERED = frozenset({Kind.SLOTS, Kind.WRR, Kind.CLIENT_RATE4, Kind.CLIENT_RATE6})
_COUNTING = frozenset({Kind.NEXTHOP4, Kind.NEXTHOP6, Kind.OWN4, Kind.OWN6})
_DISPATCH = frozenset(
    {
        *(Kind.SERVICE_PORT4, Kind.SERVICE_RANGE4, Kind.SERVICE_ANY4),
        *(Kind.SERVICE_PORT6, Kind.SERVICE_RANGE6, Kind.SERVICE_ANY6),
    }
)
_DYNAMIC = frozenset(
    {
        *(Kind.TCP4, Kind.CLOSED4, Kind.UDP4, Kind.FRAG4),
        *(Kind.TCP6, Kind.CLOSED6, Kind.UDP6, Kind.FRAG6),
        *(Kind.HOT_TCP4, Kind.HOT_UDP4, Kind.HOT_TCP6, Kind.HOT_UDP6),
        *(Kind.SAMPLE4, Kind.SAMPLE6),
        *(Kind.CLIENTS4, Kind.CLIENTS6),
        *(Kind.CLIENT_RATE4, Kind.CLIENT_RATE6),
    }
)


@dataclass(frozen=True, slots=True)
class MapName:
    """A map's name, which holds its whole definition: with another size it is another map.

    ``number`` or ``label`` (words with dots between them) tells maps of one kind apart; ``size``
    is the most elements it takes, 0 for no limit.
    """

    kind: Kind
    size: int = 0
    number: int = 0
    label: str = ""
    _text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = self.kind.value
        if self.label:
            text = f"{text}.{self.label}"
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
        words, numbers = split_name(name)
        head, _, label = words.partition(".")
        try:
            kind = Kind(head)
        except ValueError:
            return None
        if kind.labelled != bool(label):
            return None
        if label:
            parsed = cls(kind, numbers[0], label=label) if len(numbers) == 1 else None
        elif kind.numbered:
            parsed = cls(kind, numbers[1], numbers[0]) if len(numbers) == 2 else None
        elif kind.prefixes:
            parsed = cls(kind, 0, numbers[0]) if len(numbers) == 1 else None
        else:
            parsed = cls(kind, sum(numbers)) if len(numbers) < 2 else None
        return parsed if parsed is not None and str(parsed) == name else None


def pick_size(kind: Kind, needed: int, present: Collection[str]) -> MapName:
    """A map of this kind with room: the one that is there if it fits, else with room to grow."""
    for name in present:
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind is kind and parsed.size >= needed:
            return parsed
    return MapName(kind, max(_SMALLEST, 1 << (2 * needed - 1).bit_length()))


def split_name(name: str) -> tuple[str, list[int]]:
    """A map's name, in two parts: the words, and the numbers behind them."""
    words = name.split("_")
    numbers: list[int] = []
    while len(words) > 1 and words[-1].isdecimal():
        numbers.insert(0, int(words.pop()))
    return "_".join(words), numbers


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; known in the kernel by the digest in its comment, however nft prints it.

    ``pinned`` is what the text refers to when it is loaded (interface indices): the same text
    that refers to something else is another rule.
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
