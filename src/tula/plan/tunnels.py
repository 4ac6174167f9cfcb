"""The tunnels of l3 services: which devices, between which addresses, how large a packet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from tula.model.config import Backend, Config, Forwarding, IPAddress, Tunnel, TunnelSettings
from tula.model.host import HostView
from tula.model.ids import Ids
from tula.model.tunnel import TunnelDevice, Tunnels, VxlanNeighbour, VxlanPeer

_KINDS = {
    (Tunnel.IPIP, 4): "sit",
    (Tunnel.IPIP, 6): "ip6tnl",
    (Tunnel.GRE, 4): "gre",
    (Tunnel.GRE, 6): "ip6gre",
    (Tunnel.GUE, 4): "sit",
    (Tunnel.GUE, 6): "ip6tnl",
    (Tunnel.VXLAN, 4): "vxlan",
    (Tunnel.VXLAN, 6): "vxlan",
}
"""The kernel's kind of device by the version of the outer addresses. ``sit`` in mode any and
``ip6tnl`` take packets of both versions."""
_BIG = "ipip"
_OUTER = {4: 20, 6: 40}
_HEADERS = {Tunnel.IPIP: 0, Tunnel.GRE: 4, Tunnel.GUE: 8 + 4, Tunnel.VXLAN: 8 + 8 + 14}

_HOPS4 = int(IPv4Address("169.254.0.0"))
_HOPS6 = int(IPv6Address("fe80::5475:6c61:0:0"))


@dataclass(frozen=True, slots=True)
class Outer:
    """The addresses outside, and the interface that they leave by."""

    local: IPAddress
    remote: IPAddress
    interface: str


Pair = tuple[Tunnel, str]
"""A tunnel of a service and Backend.key: services share what this leads to."""


@dataclass(frozen=True, slots=True)
class Way:
    """The device to a backend; ``big`` is for IPv4 packets that are larger than its MTU.

    A tunnel with a TTL of its own forbids fragments of the outer packet (ip_tunnel.c), and drops
    what does not fit without a word, since a packet forwarded at ingress has no route that an
    ICMP error could take. So such packets have a device that takes over their TTL.
    """

    device: TunnelDevice
    big: TunnelDevice | None = None


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """The ways by pair, and all that the machine must have for them."""

    ways: Mapping[Pair, Way]
    tunnels: Tunnels


def outer_address(backend: Backend) -> IPAddress:
    """Where a backend's tunnels end: its IPv4 address, else its IPv6 address."""
    return min(backend.addresses, key=lambda address: address.version)


def overhead(tunnel: Tunnel, outer: int) -> int:
    """Bytes that a tunnel puts before a packet, by the version of its outer addresses.

    VXLAN: UDP, its own header and the inner MAC header (RFC 7348); GUE: UDP and its own
    (draft-ietf-intarea-gue); GRE without key (RFC 2784).
    """
    return _OUTER[outer] + _HEADERS[tunnel]


def vxlan_mac(remote: IPAddress) -> str:
    """The MAC that a backend's VXLAN device has to have: both ends know it without asking.

    Locally administered; of an IPv4 address its four bytes, of an IPv6 address a digest.
    """
    packed = remote.packed
    tail = packed if remote.version == 4 else blake2b(packed, digest_size=4).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02\x54" + tail)


def hop_address(backend: Backend, version: int, number: int) -> IPAddress:
    """The next hop's address inside the tunnel, of a version that the backend may not have.

    It only names a neighbour of the tunnel's device; no packet shows it.
    """
    own = backend.address(version)
    if own is not None:
        return own
    return IPv4Address(_HOPS4 + number) if version == 4 else IPv6Address(_HOPS6 + number)


def has_own_hop(backend: Backend, version: int) -> bool:
    """Whether ``hop_address`` is one of the backend's."""
    return backend.address(version) is not None


def plan_tunnels(
    config: Config, host: HostView, outers: Mapping[IPAddress, Outer], ids: Ids
) -> TunnelPlan:
    """The devices for all l3 services' backends that have ``outers``, by ``outer_address``.

    A device that is there keeps its index.
    """
    versions: dict[Pair, set[int]] = {}
    backends: dict[str, Backend] = {}
    for tunnel, backend, version in _uses(config):
        if outer_address(backend) not in outers:
            continue  # no way there now
        versions.setdefault((tunnel, backend.key), set()).add(version)
        backends[backend.key] = backend
    numbered = _Numbered(host)
    locals_ = _vxlan_locals(versions, backends, outers)
    ways: dict[Pair, Way] = {}
    peers: set[VxlanPeer] = set()
    neighbours: set[VxlanNeighbour] = set()
    for pair in sorted(versions):
        tunnel, key = pair
        outer = outers[outer_address(backends[key])]
        if tunnel is Tunnel.VXLAN:
            device = _vxlan(locals_[outer.remote.version], outer, host, config.tunnels)
        else:
            device = _point_to_point(tunnel, outer, host, config.tunnels)
        big = _big(device, outer, host) if 4 in versions[pair] and device.kind == "sit" else None
        way = ways[pair] = Way(numbered.take(device), numbered.take(big) if big else None)
        if tunnel is Tunnel.VXLAN:
            mac = vxlan_mac(outer.remote)
            peers.add(VxlanPeer(way.device.name, mac, outer.remote))
            neighbours |= {
                VxlanNeighbour(
                    way.device.name, hop_address(backends[key], version, ids.backends[key]), mac
                )
                for version in versions[pair]
            }
    tunnels = Tunnels(numbered.devices, frozenset(peers), frozenset(neighbours))
    return TunnelPlan(ways, tunnels)


def kinds_of(tunnel: Tunnel, remote: IPAddress, version: int) -> set[str]:
    """The kinds of link that the kernel must have for packets of an IP version."""
    kind = _KINDS[tunnel, remote.version]
    kinds = {kind, _BIG} if kind == "sit" and version == 4 else {kind}
    return kinds | {"fou" if remote.version == 4 else "fou6"} if tunnel is Tunnel.GUE else kinds


def _uses(config: Config) -> Iterator[tuple[Tunnel, Backend, int]]:
    for service in config.services:
        if service.forwarding is Forwarding.L3:
            for backend in service.backends:
                for version in service.versions:
                    yield service.tunnel, backend, version


class _Numbered:
    """Devices with their indices; those that are there have theirs."""

    def __init__(self, host: HostView) -> None:
        self.devices: dict[str, TunnelDevice | None] = {}
        self._links = {name: link.index for name, link in host.links.items()}
        self._taken = set(self._links.values())

    def take(self, wanted: TunnelDevice) -> TunnelDevice:
        known = self.devices.get(wanted.name)
        if known is not None:
            return known
        there = self._links.get(wanted.name)
        made = wanted.at(there) if there is not None else wanted.with_index(self._taken)
        self._taken.add(made.index)
        self.devices[wanted.name] = made
        return made


def _point_to_point(
    tunnel: Tunnel, outer: Outer, host: HostView, settings: TunnelSettings
) -> TunnelDevice:
    link = host.links[outer.interface]
    kind = _KINDS[tunnel, outer.remote.version]
    mtu = link.mtu - overhead(tunnel, outer.remote.version)
    if kind == "gre":
        # ip_gre alone can ignore what the packet inside says of fragments (ignore-df): what is
        # too large travels in fragments, and the MTU need not be lower.
        return TunnelDevice(kind, outer.local, outer.remote, link.mtu, fragments=True)
    if tunnel is Tunnel.GUE:
        # Bound to its interface: the kernel has one device of a kind for two addresses and an
        # interface, and ipip to the same backend has the one for any interface.
        port = settings.gue_port
        return TunnelDevice(kind, outer.local, outer.remote, mtu, bound=link.index, gue_port=port)
    return TunnelDevice(kind, outer.local, outer.remote, mtu)


def _big(device: TunnelDevice, outer: Outer, host: HostView) -> TunnelDevice:
    """The device beside a ``sit`` for large IPv4 packets: their outer packets are fragmented."""
    return TunnelDevice(
        _BIG,
        device.local,
        device.remote,
        host.links[outer.interface].mtu,
        ttl=0,
        fragments=True,
        bound=device.bound,
        gue_port=device.gue_port,
    )


def _vxlan(
    local: IPAddress, outer: Outer, host: HostView, settings: TunnelSettings
) -> TunnelDevice:
    # The kernel fragments the outer packet where it must, so the MTU need not be lower.
    return TunnelDevice(
        "vxlan",
        local,
        None,
        host.links[outer.interface].mtu,
        fragments=True,
        vni=settings.vxlan_id,
        port=settings.vxlan_port,
    )


def _vxlan_locals(
    versions: Mapping[Pair, set[int]],
    backends: Mapping[str, Backend],
    outers: Mapping[IPAddress, Outer],
) -> dict[int, IPAddress]:
    """The address that the VXLAN device of each outer version sends from.

    Where backends are reached from several, none is named, and each packet's route says.
    """
    found: dict[int, set[IPAddress]] = {}
    for tunnel, key in versions:
        if tunnel is Tunnel.VXLAN:
            outer = outers[outer_address(backends[key])]
            found.setdefault(outer.remote.version, set()).add(outer.local)
    anywhere: dict[int, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
    return {v: min(a) if len(a) == 1 else anywhere[v] for v, a in found.items()}
