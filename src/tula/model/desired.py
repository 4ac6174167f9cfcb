"""What the machine must do: the configuration, made definite for one machine.

Nothing here is a data path's own: no packet marks, no numbers of services or tables, no devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tula.model.admission import Admission
from tula.model.announcing import Announcing
from tula.model.client_scopes import ClientScope
from tula.model.config import (
    Connections,
    IPAddress,
    MarkRange,
    PortRange,
    Protocol,
    Tunnel,
    TunnelSettings,
)
from tula.model.host import Link


class NewFlows(StrEnum):
    """How a service chooses for a new flow. What is not new and has no entry goes by hash."""

    HASH = "hash"
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class NextHop:
    """A neighbour: its address, over this interface."""

    address: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class TunnelEndpoints:
    """The outer addresses of a tunnel, and the interface that its packets leave by."""

    local: IPAddress
    remote: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class DesiredTunnel:
    """The encapsulation to one backend."""

    kind: Tunnel
    endpoints: TunnelEndpoints


@dataclass(frozen=True, slots=True)
class DesiredBackend:
    """A backend and the route to it: next hops by IP version (l2), or a tunnel (l3).

    ``addresses`` are its own, at most one of each IP version; ``key`` is ``Backend.key``. One
    that is not ``present`` keeps its route, but none of the flows that it had. One that does not
    keep its clients gets no new flow of a persistent client that was its. One that is ``own`` is
    this machine, and has no route: its packets are for the machine's own stack.
    """

    name: str
    key: str
    addresses: tuple[IPAddress, ...]
    weight: int
    next_hops: Mapping[int, NextHop]
    tunnel: DesiredTunnel | None = None
    present: bool = True
    keeps_clients: bool = True
    """Of no meaning in a service without persistence."""
    own: bool = False

    def address(self, version: int) -> IPAddress | None:
        """The address of IP version 4 or 6, if there is one."""
        return next((a for a in self.addresses if a.version == version), None)


Content = tuple[tuple[str, int], ...]
"""(Backend.key, weight) pairs."""


@dataclass(frozen=True, slots=True, eq=False)
class SlotTable:
    """Which backend each slot stands for: a Maglev table, or the order of round robin.

    ``slots`` are indices into ``content``. Services whose ``group`` is equal share a table; it is
    ``content`` but for tables that change by themselves. Compared by identity: services that share
    a table share the object, and one that did not change stays the same object.
    """

    group: Content
    content: Content
    slots: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DesiredService:
    """A service and the tables that choose for it.

    ``maglev`` is None when nobody serves; ``order`` is the order of round robin, for
    ``NewFlows.ROUND_ROBIN``. ``probed``: its backends are checked through the data path.
    ``per_packet``: each UDP packet is a new flow that nobody remembers; never with HASH.
    """

    name: str
    vips: tuple[IPAddress, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    by_client: bool
    new_flows: NewFlows
    maglev: SlotTable | None
    order: SlotTable | None
    backends: tuple[DesiredBackend, ...]
    versions: tuple[int, ...]
    """The IP versions (4, 6) of its VIPs."""
    probed: bool = False
    persistence: ClientScope | None = None
    """Where its clients are remembered, with which other services; None: nowhere."""
    per_packet: bool = False
    admission: Admission | None = None
    """Who may connect; None: everybody, as fast as they like."""


class Announce(StrEnum):
    """Who puts a VIP on the machine, and tells the network of it."""

    STATIC = "static"
    """Tula does, and answers ARP and neighbour discovery"""
    EXTERNAL = "external"
    """somebody else routes it here (``announce: false``)"""
    VRRP = "vrrp"
    """keepalived does, on one balancer at a time"""
    BGP = "bgp"
    """BIRD announces a route to it, on every balancer"""


@dataclass(frozen=True, slots=True)
class DesiredVip:
    """A VIP and the services that it is for; ``interface`` is empty for one that is routed here,
    as those by BGP are."""

    address: IPAddress
    interface: str
    services: tuple[str, ...] = ()
    announce: Announce = Announce.STATIC


@dataclass(frozen=True, slots=True)
class SharedWith:
    """Who must know this balancer's flows: it sends from ``local`` to each of ``peers``, on UDP
    ``port``. ``all_flows``: all of them, not only those whose backend is not what the hash says.
    """

    local: IPAddress
    peers: tuple[IPAddress, ...]
    port: int
    all_flows: bool = False
    near: frozenset[IPAddress] = frozenset()
    """Those peers that are in a subnet of this machine's: no router is between."""


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that the data path and the VIPs of one machine must be.

    ``links`` are the machine's interfaces, by name; ``interfaces`` those where clients' packets
    arrive. ``seed`` is that of the hash. ``marks`` bounds what a data path that marks packets may
    use.
    """

    interfaces: tuple[str, ...]
    links: Mapping[str, Link]
    services: tuple[DesiredService, ...]
    connections: Connections
    seed: int
    marks: MarkRange
    tunnels: TunnelSettings
    vips: tuple[DesiredVip, ...] = ()
    shared_with: SharedWith | None = None
    """None: flows are nobody else's business."""
    counts_often: bool = False
    """Whether some scheduler goes by how many connections backends hold."""
    announcing: Announcing | None = None
    """None: this machine is not one of several balancers, and no engine announces."""
    forwarders: tuple[bytes, ...] = ()
    """The MAC addresses of other balancers that may send this machine, as their backend, packets
    for the VIPs of services that it serves itself."""
