"""The devices of the tunnels: which, between which addresses, how large a packet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.shared_flows import sync_device
from tula.dataplane.nft.tunnel_devices import TunnelDevice, Tunnels, VxlanNeighbour, VxlanPeer
from tula.model.config import IPAddress, Tunnel, TunnelSettings
from tula.model.desired import DesiredBackend, DesiredState, TunnelEndpoints
from tula.model.host import Link
from tula.plan.tunnels import overhead, vxlan_mac

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

_HOPS4 = int(IPv4Address("169.254.0.0"))
_HOPS6 = int(IPv6Address("fe80::5475:6c61:0:0"))


Pair = tuple[Tunnel, str]
"""A tunnel of a service and Backend.key: services share what this leads to."""


@dataclass(frozen=True, slots=True)
class BackendDevices:
    """The device to a backend; ``big`` is for IPv4 packets that are larger than its MTU.

    A tunnel with a TTL of its own forbids fragments of the outer packet (ip_tunnel.c), and drops
    what does not fit without a word, since a packet forwarded at ingress has no route that an
    ICMP error could take. So such packets have a device that takes over their TTL.
    """

    device: TunnelDevice
    big: TunnelDevice | None = None


@dataclass(frozen=True, slots=True)
class TunnelPlan:
    """The devices by pair, and all that the machine must have for them."""

    devices: Mapping[Pair, BackendDevices]
    tunnels: Tunnels

    @property
    def big_above(self) -> int:
        """The smallest MTU of devices that have one for large packets beside them; 0: none has."""
        return min((found.device.mtu for found in self.devices.values() if found.big), default=0)


def hop_address(backend: DesiredBackend, version: int, number: int) -> IPAddress:
    """The next hop's address inside the tunnel, of a version that the backend may not have.

    It only names a neighbour of the tunnel's device; no packet shows it.
    """
    own = backend.address(version)
    if own is not None:
        return own
    return IPv4Address(_HOPS4 + number) if version == 4 else IPv6Address(_HOPS6 + number)


def has_own_hop(backend: DesiredBackend, version: int) -> bool:
    """Whether ``hop_address`` is one of the backend's."""
    return backend.address(version) is not None


def plan_tunnels(state: DesiredState, ids: Ids) -> TunnelPlan:
    """The devices for all backends that have a tunnel. A device that is there keeps its index."""
    versions: dict[Pair, set[int]] = {}
    backends: dict[str, tuple[DesiredBackend, TunnelEndpoints]] = {}
    for service in state.services:
        for backend in service.backends:
            if backend.tunnel is not None:
                pair = (backend.tunnel.kind, backend.key)
                versions.setdefault(pair, set()).update(service.versions)
                backends[backend.key] = (backend, backend.tunnel.endpoints)
    numbered = _Numbered(state.links)
    locals_ = _vxlan_locals(versions, backends)
    found: dict[Pair, BackendDevices] = {}
    peers: set[VxlanPeer] = set()
    neighbours: set[VxlanNeighbour] = set()
    for pair in sorted(versions):
        tunnel, key = pair
        backend, endpoints = backends[key]
        link = state.links[endpoints.interface]
        if tunnel is Tunnel.VXLAN:
            device = _vxlan(locals_[endpoints.remote.version], link, state.tunnels)
        else:
            device = _point_to_point(tunnel, endpoints, link, state.tunnels)
        big = _big(device, link) if 4 in versions[pair] and device.kind == "sit" else None
        made = found[pair] = BackendDevices(
            numbered.take(device), numbered.take(big) if big else None
        )
        if tunnel is Tunnel.VXLAN:
            mac = vxlan_mac(endpoints.remote)
            peers.add(VxlanPeer(made.device.name, mac, endpoints.remote))
            neighbours |= {
                VxlanNeighbour(
                    made.device.name, hop_address(backend, version, ids.backends[key]), mac
                )
                for version in versions[pair]
            }
    if state.shared_with is not None:
        sync, others = sync_device(state.shared_with)
        numbered.take(sync)
        peers |= others
    tunnels = Tunnels(numbered.devices, frozenset(peers), frozenset(neighbours))
    return TunnelPlan(found, tunnels)


def kinds_of(tunnel: Tunnel, remote: IPAddress, version: int) -> set[str]:
    """The kinds of link that the kernel must have for packets of an IP version."""
    kind = _KINDS[tunnel, remote.version]
    kinds = {kind, _BIG} if kind == "sit" and version == 4 else {kind}
    return kinds | {"fou" if remote.version == 4 else "fou6"} if tunnel is Tunnel.GUE else kinds


class _Numbered:
    """Devices with their indices; those that are there have theirs."""

    def __init__(self, links: Mapping[str, Link]) -> None:
        self.devices: dict[str, TunnelDevice | None] = {}
        self._links = {name: link.index for name, link in links.items()}
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
    tunnel: Tunnel, outer: TunnelEndpoints, link: Link, settings: TunnelSettings
) -> TunnelDevice:
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


def _big(device: TunnelDevice, link: Link) -> TunnelDevice:
    """The device beside a ``sit`` for large IPv4 packets: their outer packets are fragmented."""
    return TunnelDevice(
        _BIG,
        device.local,
        device.remote,
        link.mtu,
        ttl=0,
        fragments=True,
        bound=device.bound,
        gue_port=device.gue_port,
    )


def _vxlan(local: IPAddress, link: Link, settings: TunnelSettings) -> TunnelDevice:
    # The kernel fragments the outer packet where it must, so the MTU need not be lower.
    return TunnelDevice(
        "vxlan",
        local,
        None,
        link.mtu,
        fragments=True,
        vni=settings.vxlan_id,
        port=settings.vxlan_port,
    )


def _vxlan_locals(
    pairs: Iterable[Pair], backends: Mapping[str, tuple[DesiredBackend, TunnelEndpoints]]
) -> dict[int, IPAddress]:
    """The address that the VXLAN device of each outer version sends from.

    Where backends are reached from several, none is named, and each packet's route says.
    """
    found: dict[int, set[IPAddress]] = {}
    for tunnel, key in pairs:
        if tunnel is Tunnel.VXLAN:
            _, endpoints = backends[key]
            found.setdefault(endpoints.remote.version, set()).add(endpoints.local)
    anywhere: dict[int, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
    return {v: min(a) if len(a) == 1 else anywhere[v] for v, a in found.items()}
