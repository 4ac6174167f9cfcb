"""What one document says, after validation.

The values here are what the rest of Tula works on; ``tula.config`` builds them from YAML and
guarantees the rules of the contract (no overlapping services, every backend has an address of
each VIP's family that its forwarding needs, names are ``[a-z0-9-]``, 1 to 63 characters).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address


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
    """One server of a service; at most one address of each family, weight 0 to 65535."""

    name: str
    addresses: tuple[IPAddress, ...]
    weight: int = 100
    texts: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The addresses as text, in their order; cheap to compare and to look up."""
    key: str = field(init=False, repr=False, compare=False)
    """What the backend is to the scheduler and to its id: its IPv4 address, else its IPv6.

    Not the name, so that renaming and reordering move no flow.
    """

    def __post_init__(self) -> None:
        texts = tuple(map(_text, self.addresses))
        object.__setattr__(self, "texts", texts)
        key = next((text for text in texts if ":" not in text), texts[0] if texts else "")
        object.__setattr__(self, "key", key)

    def address(self, version: int) -> IPAddress | None:
        """The address of family 4 or 6, if there is one."""
        return next((a for a in self.addresses if a.version == version), None)


@dataclass(frozen=True, slots=True)
class HealthMonitor:
    """A health check as the document gives it; seconds as floats. Run by the daemon.

    ``fast_interval`` is the interval while the state is about to change, None for the usual one.
    """

    type: str
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    via: str = "dsr"
    path: str | None = None
    extra: tuple[tuple[str, object], ...] = ()
    fast_interval: float | None = None


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """What a service makes of its monitors' verdicts.

    ``require_all``: a backend is up when all monitors pass, else when any does. ``slow_start``:
    seconds over which the weight of a backend that came up rises. ``panic``: when this percentage
    of the weight or less is up, all backends serve; None: never.
    """

    require_all: bool = True
    slow_start: float = 0.0
    panic: int | None = 0


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One service: its VIPs, protocols and ports, and the backends that serve them."""

    name: str
    vips: tuple[IPAddress, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    """Sorted, without overlap. Empty: any port that no other service on the VIP names."""
    forwarding: Forwarding
    backends: tuple[Backend, ...]
    scheduler: Scheduler = Scheduler.MAGLEV
    affinity: Affinity = Affinity.CONNECTION
    tunnel: Tunnel = Tunnel.IPIP
    announce: bool | str = True
    """True: on the interface whose subnet holds the VIP; a name: on that one; False: routed."""
    health: tuple[HealthMonitor, ...] = ()
    policy: HealthPolicy = HealthPolicy()
    shares: tuple[int, ...] = ()
    """What least-connections gives each of ``backends`` now; empty: as their weights."""
    versions: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """The IP versions (4, 6) of its VIPs."""

    def __post_init__(self) -> None:
        versions = tuple(sorted({vip.version for vip in self.vips}))
        object.__setattr__(self, "versions", versions)

    @property
    def by_client(self) -> bool:
        """Whether the client's address alone chooses the backend."""
        return self.scheduler is Scheduler.SOURCE_HASH or self.affinity is Affinity.CLIENT

    @property
    def probed(self) -> bool:
        """Whether some monitor checks its backends through the data path."""
        return any(monitor.via == "dsr" for monitor in self.health)


@dataclass(frozen=True, slots=True)
class Connections:
    """The connection table's settings; times in seconds, size in entries."""

    enabled: bool = True
    size: int = 262144
    tcp: float = 7200.0
    tcp_half_open: float = 60.0
    udp: float = 120.0


@dataclass(frozen=True, slots=True)
class MaglevSettings:
    """Slots of every Maglev table (None: by the number of backends) and the seed of its hash."""

    slots: int | None = None
    seed: int = 0x54756C61


@dataclass(frozen=True, slots=True)
class MarkRange:
    """Packet marks that may be backend ids, both ends included; whole blocks of 65,536."""

    first: int = 0x00010000
    last: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What both ends of a tunnel must agree on."""

    vxlan_id: int = 0x5475
    vxlan_port: int = 4789
    gue_port: int = 5555


@dataclass(frozen=True, slots=True)
class Config:
    """One document."""

    interfaces: tuple[str, ...]
    services: tuple[VirtualService, ...]
    load_balancers: tuple[tuple[str, IPAddress], ...] = ()
    connections: Connections = field(default_factory=Connections)
    maglev: MaglevSettings = field(default_factory=MaglevSettings)
    marks: MarkRange = field(default_factory=MarkRange)
    tunnels: TunnelSettings = field(default_factory=TunnelSettings)
