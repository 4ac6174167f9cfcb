"""What one configuration says, after validation, and the declaration of its keys.

The values here are what the rest of Tula works on; ``tula.config`` derives from their fields how
YAML is read (see ``tula.model.setting``), and guarantees the rules of the contract (no overlapping
services, every backend has an address of each VIP's family that its forwarding needs, names are
``[a-z0-9-]``, 1 to 63 characters).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from tula.model.admission import Admission, Limits, Refusal
from tula.model.high_availability import HighAvailability
from tula.model.listening import ApiSettings, MetricsSettings
from tula.model.monitor import HealthMonitor, HealthPolicy
from tula.model.notifying import Notifications
from tula.model.persistence import Persistence
from tula.model.prefixes import PrefixList
from tula.model.setting import Duration, Form, Integer, Setting

IPAddress = IPv4Address | IPv6Address
SELF = "self"
"""In place of a backend's address: each balancer's own stack."""
BLOCK = 65536
"""Backend ids come in blocks of this many packet marks."""


class Protocol(StrEnum):
    """Transport protocols that Tula balances."""

    TCP = "tcp"
    UDP = "udp"

    @property
    def number(self) -> int:
        """IANA protocol number, as in the IPv4 protocol and IPv6 next-header fields."""
        return 6 if self is Protocol.TCP else 17


class Forwarding(StrEnum):
    """How packets reach a backend: by its MAC (l2) or in a tunnel (l3)."""

    L2 = "l2"
    L3 = "l3"


class Tunnel(StrEnum):
    """Encapsulation of l3 forwarding."""

    IPIP = "ipip"
    GRE = "gre"
    GUE = "gue"
    VXLAN = "vxlan"


class Scheduler(StrEnum):
    """How a backend is chosen for a flow."""

    MAGLEV = "maglev"
    RR = "rr"
    WRR = "wrr"
    RANDOM = "random"
    SOURCE_HASH = "source-hash"
    LEAST_CONNECTIONS = "least-connections"


class Affinity(StrEnum):
    """What of the client keeps it with a backend: address and port, or the address alone."""

    CONNECTION = "connection"
    CLIENT = "client"


class OnDown(StrEnum):
    """What becomes of the flows of a backend that health checks took down."""

    RESET = "reset"
    KEEP = "keep"


class UdpScheduling(StrEnum):
    """What a backend is chosen for: each UDP flow, or each datagram."""

    FLOW = "flow"
    PACKET = "packet"


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports first to last, both included; 0 to 65535."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


@lru_cache(maxsize=1 << 16)
def _text(address: IPAddress) -> str:
    """A thousand services may list the same backends, and name each over and over."""
    return str(address)


@dataclass(frozen=True, slots=True)
class Backend:
    """One server of a service."""

    name: str
    addresses: Annotated[
        tuple[IPAddress, ...],
        Setting(
            "Its address, or one IPv4 and one IPv6 address; self: the balancer's own stack.",
            Form.ADDRESS_OR_SELF,
            key="address",
        ),
    ]
    """Empty: each balancer itself."""
    weight: Annotated[int, Setting("Its share of new connections; 0: none.", Integer(0, 65535))] = (
        100
    )
    backup: Annotated[
        int,
        Setting(
            "true, or a level from 1: serves only when no backend of a lower level can.",
            Form.BACKUP,
        ),
    ] = 0
    """0: not a backup."""
    forwarding: Annotated[
        Forwarding | None, Setting("l2 or l3, where it is not the service's.")
    ] = None
    tunnel: Annotated[
        Tunnel | None, Setting("The encapsulation of l3, where it is not the service's.")
    ] = None
    texts: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The addresses as text, in their order, or SELF; cheap to compare and to look up."""
    key: str = field(init=False, repr=False, compare=False)
    """What the backend is to the scheduler and to its id: its IPv4 address, else its IPv6; or SELF.

    Not the name, so that renaming and reordering move no flow.
    """

    def __post_init__(self) -> None:
        texts = tuple(map(_text, self.addresses)) or (SELF,)
        object.__setattr__(self, "texts", texts)
        key = next((text for text in texts if ":" not in text), texts[0])
        object.__setattr__(self, "key", key)

    @property
    def is_self(self) -> bool:
        """Whether it is the machine itself, on every balancer."""
        return not self.addresses

    def address(self, version: int) -> IPAddress | None:
        """The address of family 4 or 6, if there is one."""
        return next((a for a in self.addresses if a.version == version), None)


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One service: what the balancer answers for, and the backends that serve it."""

    name: str
    vips: Annotated[
        tuple[IPAddress, ...],
        Setting(
            "The virtual addresses.",
            key="vip",
            expected="an address or a list of them",
            distinct=True,
        ),
    ]
    ports: Annotated[
        tuple[PortRange, ...],
        Setting("Ports and ranges, or any: what no other service on the VIP names.", Form.PORTS),
    ]
    """Sorted, without overlap. Empty: any port that no other service on the VIP names."""
    forwarding: Annotated[
        Forwarding, Setting("l2: by MAC address, in the same subnet; l3: in a tunnel.")
    ]
    backends: tuple[Backend, ...]
    protocols: Annotated[
        tuple[Protocol, ...],
        Setting(
            "tcp, udp or both.", key="protocol", expected="tcp, udp or [tcp, udp]", distinct=True
        ),
    ] = (Protocol.TCP,)
    tunnel: Annotated[Tunnel, Setting("The encapsulation of l3.")] = Tunnel.IPIP
    scheduler: Annotated[Scheduler, Setting("How a backend is chosen for a new flow.")] = (
        Scheduler.MAGLEV
    )
    affinity: Annotated[
        Affinity,
        Setting("What keeps a client with a backend: address and port, or the address."),
    ] = Affinity.CONNECTION
    persistence: Annotated[
        Persistence | None,
        Setting("Keeps a client with its backend for a time: 5m, or a map.", alone="timeout"),
    ] = None
    minimum: Annotated[
        int,
        Setting("Fewer backends up, backups not counted, are as good as none.", Integer(1, 65535)),
    ] = 1
    on_down: Annotated[
        OnDown,
        Setting(
            "What becomes of the flows of a backend that health checks took down: reset: another "
            "backend gets them; keep: they stay."
        ),
    ] = OnDown.RESET
    udp_scheduling: Annotated[
        UdpScheduling,
        Setting("What a backend is chosen for over UDP: each flow, or each packet."),
    ] = UdpScheduling.FLOW
    allow: Annotated[
        PrefixList,
        Setting("The only clients that may connect: addresses and prefixes.", Form.PREFIXES),
    ] = field(default_factory=PrefixList)
    deny: Annotated[
        PrefixList,
        Setting("Clients that may not connect: addresses and prefixes.", Form.PREFIXES),
    ] = field(default_factory=PrefixList)
    limits: Annotated[Limits, Setting("How many new connections it takes.")] = field(
        default_factory=Limits
    )
    refuse: Annotated[
        Refusal,
        Setting("What clients see that may not connect: drop: nothing; reset: a reset."),
    ] = Refusal.DROP
    announce: Annotated[
        bool | str,
        Setting(
            "true: the balancer answers ARP and ND for the VIP on the interface whose subnet "
            "holds it, or with high_availability its engine announces it; false: the VIP is "
            "routed here; vrrp or bgp: by that engine; or an interface's name.",
            Form.ANNOUNCE,
        ),
    ] = True
    health: tuple[HealthMonitor, ...] = ()
    policy: HealthPolicy = field(default_factory=HealthPolicy)
    shares: tuple[int, ...] = ()
    """What least-connections gives each of ``backends`` now; empty: as their weights."""
    versions: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The IP versions (4, 6) of its VIPs."""

    def __post_init__(self) -> None:
        versions = tuple(sorted({vip.version for vip in self.vips}))
        object.__setattr__(self, "versions", versions)

    def forwarding_of(self, backend: Backend) -> Forwarding:
        """How packets reach one of its backends: as that says, else as the service does. One that
        is ``self`` needs no way, and no tunnel above all."""
        return Forwarding.L2 if backend.is_self else backend.forwarding or self.forwarding

    def tunnel_of(self, backend: Backend) -> Tunnel | None:
        """The encapsulation to one of its backends; None for l2."""
        l3 = self.forwarding_of(backend) is Forwarding.L3
        return (backend.tunnel or self.tunnel) if l3 else None

    @property
    def forwardings(self) -> frozenset[Forwarding]:
        """Those of its backends; its own if it has none."""
        found = frozenset(map(self.forwarding_of, self.backends))
        return found or frozenset({self.forwarding})

    @property
    def by_client(self) -> bool:
        """Whether the client's address alone chooses the backend, where the hash does: of a
        service with persistence, as much of it as tells clients apart."""
        if self.persistence is not None:
            return True
        return self.scheduler is Scheduler.SOURCE_HASH or self.affinity is Affinity.CLIENT

    @property
    def per_packet(self) -> bool:
        """Whether a backend is chosen for each of its UDP packets."""
        return self.udp_scheduling is UdpScheduling.PACKET and Protocol.UDP in self.protocols

    @property
    def admission(self) -> Admission | None:
        """Who may connect; None: everybody, as fast as they like."""
        if not self.allow and not self.deny and self.limits == Limits():
            return None
        return Admission(self.allow or None, self.deny, self.limits, self.refuse)

    @property
    def probed(self) -> bool:
        """Whether some monitor checks its backends through the data path."""
        return any(monitor.by_vip for monitor in self.health)


@dataclass(frozen=True, slots=True)
class Connections:
    """The connection table."""

    enabled: Annotated[bool, Setting("Whether flows are remembered.")] = True
    size: Annotated[int, Setting("Entries at most.", Integer(1024, 1 << 26))] = 262144
    tcp: Annotated[
        float, Setting("How long an idle established TCP connection is kept.", Duration())
    ] = 7200.0
    tcp_half_open: Annotated[
        float, Setting("How long a TCP connection is kept before it is answered.", Duration())
    ] = 60.0
    udp: Annotated[float, Setting("How long an idle UDP flow is kept.", Duration())] = 120.0


@dataclass(frozen=True, slots=True)
class MaglevSettings:
    """The consistent hash table of the maglev scheduler; the same on every balancer."""

    slots: Annotated[
        int | None,
        Setting(
            "Slots of every table, a prime; by the number of backends when left out.",
            Integer(251, 65537, prime=True),
        ),
    ] = None
    seed: Annotated[int, Setting("Seed of the hash.", Integer(0, 0xFFFFFFFF, hexadecimal=True))] = (
        0x54756C61
    )


@dataclass(frozen=True, slots=True)
class MarkRange:
    """The packet marks that Tula may use; take a part when other software marks packets too.

    They may be backend ids: whole blocks of ``BLOCK``, both ends included.
    """

    first: Annotated[
        int,
        Setting(
            "The first mark, a multiple of 65536.",
            Integer(BLOCK, 0xFFFFFFFF, hexadecimal=True, multiple=BLOCK),
        ),
    ] = 0x00010000
    last: Annotated[
        int,
        Setting(
            "The last mark; one more is a multiple.",
            Integer(2 * BLOCK - 1, 0xFFFFFFFF, hexadecimal=True, multiple=BLOCK, offset=1),
        ),
    ] = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What both ends of a tunnel must agree on; the defaults suit most networks."""

    vxlan_id: Annotated[
        int, Setting("The VXLAN network identifier.", Integer(1, (1 << 24) - 1))
    ] = 0x5475
    vxlan_port: Annotated[int, Setting("VXLAN's UDP port.", Integer(1, 65535))] = 4789
    gue_port: Annotated[int, Setting("GUE's UDP port.", Integer(1, 65535))] = 5555


@dataclass(frozen=True, slots=True)
class Config:
    """Configuration of Tula, a layer-4 load balancer with direct server return."""

    interfaces: Annotated[
        tuple[str, ...], Setting("Where clients' packets arrive.", Form.INTERFACES)
    ]
    services: tuple[VirtualService, ...]
    load_balancers: Annotated[
        tuple[tuple[str, IPAddress], ...],
        Setting("Every machine that balances by this configuration.", Form.ADDRESSES_BY_NAME),
    ] = ()
    high_availability: Annotated[HighAvailability, Setting("Several balancers as one system.")] = (
        field(default_factory=HighAvailability)
    )
    connections: Annotated[Connections, Setting("The connection table.")] = field(
        default_factory=Connections
    )
    maglev: Annotated[MaglevSettings, Setting("The maglev scheduler's table.")] = field(
        default_factory=MaglevSettings
    )
    marks: Annotated[MarkRange, Setting("The packet marks that Tula may use.")] = field(
        default_factory=MarkRange
    )
    tunnels: Annotated[TunnelSettings, Setting("What both ends of l3's tunnels agree on.")] = field(
        default_factory=TunnelSettings
    )
    api: Annotated[ApiSettings, Setting("The API on the network.", local=True)] = field(
        default_factory=ApiSettings
    )
    metrics: Annotated[MetricsSettings, Setting("Metrics for Prometheus.", local=True)] = field(
        default_factory=MetricsSettings
    )
    notify: Annotated[
        Notifications,
        Setting("Who is told when something changes.", Form.RECEIVERS, local=True),
    ] = field(default_factory=Notifications)
