"""Where packets of clients go: every VIP at every backend, and what is asked there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tula.doctor.packets import ECHO, PORTS, TCP, UDP
from tula.doctor.payloads import udp_payloads
from tula.doctor.scene import STRAYS, Scene
from tula.doctor.talk import InTunnel, Link, Question, WhoHas
from tula.model.config import (
    Backend,
    Forwarding,
    IPAddress,
    Protocol,
    Tunnel,
    VirtualService,
)
from tula.model.host import Route
from tula.plan.tunnels import outer_address, overhead, vxlan_mac

_MOST_PORTS = 8
"""Of a service that are tried, single ports first."""
_MOST_QUESTIONS = PORTS - 8_000
"""Those about sizes come to the rest."""
_HEADERS = {4: 40, 6: 60}

Macs = Mapping[tuple[str, IPAddress], set[bytes]]
"""Who said of an address, on an interface, that it is his."""


@dataclass(frozen=True, slots=True)
class Site:
    """One VIP at one backend, reached by one way; ``source`` is what this machine asks from.

    ``tcp`` are the ports that must accept, ``udp`` those that must not be closed.
    """

    backend: Backend
    vip: IPAddress
    way: Link | InTunnel
    source: IPAddress
    direct_source: IPAddress
    interface: str
    services: tuple[str, ...] = ()
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    mtu: int = 1500
    """The largest packet on the link that leads there."""
    payloads: Mapping[int, bytes] = field(default_factory=dict)
    """By UDP port, what a server there answers."""

    @property
    def own(self) -> IPAddress:
        """The backend's own address, of the VIP's version if it has one."""
        return self.backend.address(self.vip.version) or self.backend.addresses[0]

    @property
    def outer(self) -> IPAddress:
        """Where packets go on the network: the tunnel's end, else the backend."""
        return self.way.remote if isinstance(self.way, InTunnel) else self.own

    @property
    def room(self) -> int:
        """Bytes that the tunnel takes of each packet."""
        way = self.way
        return overhead(way.tunnel, way.remote.version) if isinstance(way, InTunnel) else 0

    def segment(self, mtu: int) -> int:
        """The largest TCP segment for the VIP where packets of so many bytes pass."""
        return mtu - self.room - _HEADERS[self.vip.version]

    def ask_vip(self, what: str, port: int = 0) -> Question:
        """To the VIP, as a client's packet goes."""
        payload = self._payload(what, port)
        needed = what != UDP or bool(payload)
        return Question(what, self.source, self.vip, self.way, port, payload=payload, needed=needed)

    def ask_own(self, what: str, port: int = 0) -> Question:
        """The same to the backend's own address, by the ordinary way."""
        payload = self._payload(what, port)
        needed = what != UDP or bool(payload)
        return Question(what, self.direct_source, self.own, None, port, 0, payload, needed)

    def _payload(self, what: str, port: int) -> bytes:
        return self.payloads.get(port, b"") if what == UDP else b""

    def ask_stray(self) -> Question:
        """Whose answer goes to nobody: it shows where the backend's default route leads."""
        return Question(ECHO, STRAYS[self.vip.version], self.vip, self.way, needed=False)

    def ask_size(self, size: int) -> Question:
        """A packet of so many bytes on the network, not to be fragmented."""
        if isinstance(self.way, InTunnel):
            return Question(ECHO, self.way.local, self.way.remote, None, size=size)
        return Question(ECHO, self.source, self.own, self.way, size=size)

    def ask_forwarded(self, address: IPAddress, source: IPAddress) -> Question:
        """An echo to the backend's own address, by the way of clients' packets."""
        return Question(ECHO, source, address, self.way)


def plan_sites(scene: Scene, macs: Macs) -> list[Site]:
    """All sites of backends that have a way and, for l2, a MAC."""
    sources = scene.sources
    found: dict[tuple[str, IPAddress, Tunnel | None], list[VirtualService]] = {}
    backends: dict[str, Backend] = {}
    for service in scene.config.services:
        tunnel = service.tunnel if service.forwarding is Forwarding.L3 else None
        for backend in service.backends:
            backends[backend.key] = backend
            for vip in service.vips:
                found.setdefault((backend.key, vip, tunnel), []).append(service)
    sites = []
    for (key, vip, tunnel), services in found.items():
        backend = backends[key]
        source = sources.toward(backend, vip.version)
        own = backend.address(vip.version) or backend.addresses[0]
        direct = sources.to(own, own.version)
        reached = _way(scene, macs, backend, vip, tunnel)
        if source is None or direct is None or reached is None:
            continue
        way, interface = reached
        sites.append(
            Site(
                backend=backend,
                vip=vip,
                way=way,
                source=source,
                direct_source=direct,
                interface=interface,
                services=tuple(service.name for service in services),
                tcp=_ports(services, Protocol.TCP),
                udp=_ports(services, Protocol.UDP),
                mtu=scene.host.links[interface].mtu,
                payloads=udp_payloads(services),
            )
        )
    return sites


def askable(sites: Sequence[Site]) -> list[Site]:
    """As many, from the first, as there are numbers for what is asked of them."""
    left = _MOST_QUESTIONS
    for count, site in enumerate(sites):
        left -= 2 * len(site.tcp) + 2 * len(site.udp) + 8
        if left < 0:
            return list(sites[:count])
    return list(sites)


def _way(
    scene: Scene, macs: Macs, backend: Backend, vip: IPAddress, tunnel: Tunnel | None
) -> tuple[Link | InTunnel, str] | None:
    """The way of packets for a VIP, and the interface that they leave by."""
    if tunnel is None:
        address = backend.address(vip.version)
        hop = scene.reach.hops.get(address) if address is not None else None
        if hop is None:
            return None
        mac = min(macs.get((hop.interface, hop.address), ()), default=b"")
        return (Link(hop.interface, mac), hop.interface) if mac else None
    outer = scene.reach.endpoints.get(outer_address(backend))
    if outer is None:
        return None
    mac = bytes.fromhex(vxlan_mac(outer.remote).replace(":", ""))
    way = InTunnel(tunnel, outer.local, outer.remote, mac if tunnel is Tunnel.VXLAN else b"")
    return way, outer.interface


def _ports(services: list[VirtualService], protocol: Protocol) -> tuple[int, ...]:
    """The ports that a server must have: single ones, and those that monitors ask.

    Somewhere in a range may well be nobody.
    """
    ports: dict[int, None] = {}
    for service in services:
        if protocol not in service.protocols:
            continue
        for monitor in service.health:
            port = monitor.port
            if port and monitor.via == "dsr" and any(port in known for known in service.ports):
                ports[port] = None
        single = [r.first for r in service.ports if r.first == r.last and r.first]
        ports |= dict.fromkeys(single[:_MOST_PORTS])
    return tuple(ports)


def first_questions(sites: list[Site]) -> Iterator[Question]:
    """What is asked of everyone."""
    for site in sites:
        for port in site.tcp:
            yield site.ask_vip(TCP, port)
            yield site.ask_own(TCP, port)
        for port in site.udp:
            yield site.ask_vip(UDP, port)
            yield site.ask_own(UDP, port)
        if not site.tcp:
            yield site.ask_vip(ECHO)
        yield site.ask_stray()
        yield site.ask_size(0)
        yield site.ask_size(site.mtu)


def who_has_backends(scene: Scene) -> Iterator[WhoHas]:
    """The MACs of all backends and balancers that are on-link."""
    addresses = {
        a for service in scene.config.services for b in service.backends for a in b.addresses
    }
    addresses |= {address for _, address in scene.config.load_balancers} - scene.own
    for address in sorted(addresses, key=str):
        route = scene.host.routes.get(address)
        if route is not None and is_on_link(route):
            asked = who_has(scene, route.interface, address, needed=True)
            if asked is not None:
                yield asked


def who_has_vips(scene: Scene) -> Iterator[WhoHas]:
    """Who else says that he has a VIP: on every interface in use; silence is as it should be."""
    for interface in scene.interfaces:
        for vip in sorted(scene.vips, key=str):
            asked = who_has(scene, interface, vip, needed=False)
            if asked is not None:
                yield asked


def who_has(scene: Scene, interface: str, address: IPAddress, *, needed: bool) -> WhoHas | None:
    """The question, if the interface has a MAC and this machine an address to ask from."""
    link = scene.host.links.get(interface)
    state = scene.links.get(interface)
    if link is None or len(link.mac) != 6 or (state is not None and not state.up):
        return None
    source = _asker(scene, interface, address)
    return WhoHas(interface, link.mac, source, address, needed) if source is not None else None


def is_on_link(route: Route) -> bool:
    """Whether a neighbour is asked for its MAC, and no gateway."""
    return route.kind == "unicast" and route.gateway is None


def _asker(scene: Scene, interface: str, address: IPAddress) -> IPAddress | None:
    """An own address of the interface to ask from, one of the same subnet before others."""
    vips = scene.vips
    own = [
        held.address
        for held in scene.host.addresses
        if held.interface == interface
        and held.address.version == address.version
        and held.address.ip not in vips
    ]
    near = [each.ip for each in own if address in each.network]
    if near or own:
        return (near or [each.ip for each in own if not each.ip.is_link_local] or [own[0].ip])[0]
    return scene.sources.to(None, address.version)
