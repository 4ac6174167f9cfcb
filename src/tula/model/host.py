"""What one machine looks like from outside its load balancer: links, addresses, routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from tula.model.backend_setup import VIP_DEVICE
from tula.model.config import IPAddress


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; ``mac`` is empty for one without link-layer addresses.

    ``up``: by the administrator; ``carrier``: it has a cable; ``carriers``: how often one has come,
    so that one that went for a moment is noticed. Links that differ only in these are equal:
    nothing in the data path depends on them. ``kind`` is the kernel's (``macvlan``; empty for a
    network card), ``lower`` the index of the interface below it, ``master`` that of the bridge or
    bond that it is a port of.
    ``ethernet``: packets have an Ethernet header there, as they have not on tun, WireGuard, PPP and
    tunnels of IP.
    """

    name: str
    index: int
    mac: bytes = b""
    mtu: int = 1500
    up: bool = field(default=True, compare=False)
    carrier: bool = field(default=True, compare=False)
    carriers: int = field(default=0, compare=False)
    kind: str = ""
    lower: int = 0
    master: int = 0
    ethernet: bool = True


@dataclass(frozen=True, slots=True)
class LinkState:
    """What can keep packets from an interface or out of the data path.

    ``up``: by the administrator; ``carrier``: it has a cable. ``programs`` see packets before
    nftables.
    """

    up: bool = True
    carrier: bool = True
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address that the machine holds; ``ours`` when Tula put it there, ``engine`` when an engine
    did by a file of Tula's."""

    interface: str
    address: IPv4Interface | IPv6Interface
    ours: bool = False
    engine: bool = False

    @property
    def native(self) -> bool:
        """Whether the machine has it by itself."""
        return not self.ours and not self.engine

    @property
    def quiet(self) -> bool:
        """Whether nothing is announced there: a backend holds the VIPs so, as a balancer that
        serves does beside its role."""
        return self.interface in ("lo", VIP_DEVICE)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the machine would send a packet: ``gateway`` is None for an on-link destination.

    ``kind`` is ``unicast``, ``local`` (this machine) or ``none`` (unreachable, no route).
    ``source`` is the address that the machine would send from.
    """

    kind: str
    interface: str = ""
    gateway: IPAddress | None = None
    source: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class OwnedAddress:
    """A VIP that Tula puts on an interface."""

    address: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class HostView:
    """One reading of a machine; routes only to the destinations that were asked for.

    ``ssh_ports`` are the usual one unless somebody asked for them.
    """

    links: Mapping[str, Link] = field(default_factory=dict)
    addresses: tuple[HostAddress, ...] = ()
    routes: Mapping[IPAddress, Route] = field(default_factory=dict)
    ssh_ports: frozenset[int] = frozenset({22})
    macs: Mapping[IPAddress, bytes] = field(default_factory=dict)
    """The MAC addresses of those neighbours that were asked for, as far as they are known."""

    @property
    def owned(self) -> tuple[OwnedAddress, ...]:
        """The VIPs that Tula has put on this machine."""
        return tuple(
            OwnedAddress(held.address.ip, held.interface) for held in self.addresses if held.ours
        )
