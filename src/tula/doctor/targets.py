"""The targets of the tests: every VIP at every backend, and the requests for each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dns.exception
import dns.message

from tula.doctor.observation import UNUSED_ADDRESSES, Observation
from tula.doctor.packets import ECHO, PORTS, TCP, UDP
from tula.doctor.requests import L2Path, MacTable, Request, TunnelPath
from tula.model.config import (
    Backend,
    IPAddress,
    Protocol,
    Tunnel,
    VirtualService,
)
from tula.model.monitor import DnsProbe, HealthMonitor, UdpProbe
from tula.plan.tunnels import outer_address, overhead, vxlan_mac

_MAX_PORTS = 8
"""Single ports of a service that are tested."""
_MAX_REQUESTS = PORTS - 8_000
"""The rest is for requests about packet sizes."""
_TCP_HEADERS = {4: 40, 6: 60}
"""IP and TCP headers, in bytes."""
_DNS_PORT = 53
_DNS_ROOT = bytes.fromhex("547501000001000000000000" + "00" + "00020001")
"""A query for the root's name servers: any DNS server replies to it, if only to refuse."""


@dataclass(frozen=True, slots=True)
class Target:
    """One VIP at one backend over one path.

    ``tcp`` are the ports that must be open, ``udp`` those that must not be closed. ``source`` is
    the address that requests over the path come from, ``direct_source`` that of requests to the
    backend's own address.
    """

    backend: Backend
    vip: IPAddress
    path: L2Path | TunnelPath
    source: IPAddress
    direct_source: IPAddress
    interface: str
    services: tuple[str, ...] = ()
    tcp: tuple[int, ...] = ()
    udp: tuple[int, ...] = ()
    mtu: int = 1500
    """That of the interface, in bytes."""
    payloads: Mapping[int, bytes] = field(default_factory=dict)
    """By UDP port, a payload that a server there replies to."""
    large_source: IPAddress | None = None
    """An address of this machine's on a link to clients that takes larger packets (l2)."""

    @property
    def address(self) -> IPAddress:
        """The backend's own address, of the VIP's IP version if it has one."""
        return self.backend.address(self.vip.version) or self.backend.addresses[0]

    @property
    def outer_destination(self) -> IPAddress:
        """The destination on the network: the tunnel's remote address, else the backend's."""
        return self.path.remote if isinstance(self.path, TunnelPath) else self.address

    @property
    def tunnel_overhead(self) -> int:
        """Bytes that the tunnel adds to each packet."""
        path = self.path
        return overhead(path.tunnel, path.remote.version) if isinstance(path, TunnelPath) else 0

    def max_segment(self, mtu: int) -> int:
        """The largest TCP segment for the VIP when packets of ``mtu`` bytes pass."""
        return mtu - self.tunnel_overhead - _TCP_HEADERS[self.vip.version]

    def to_vip(self, kind: str, port: int = 0) -> Request:
        """To the VIP, over the path of clients' packets."""
        payload = self._payload(kind, port)
        awaited = kind != UDP or bool(payload)
        return Request(
            kind, self.source, self.vip, self.path, port, payload=payload, awaited=awaited
        )

    def to_backend(self, kind: str, port: int = 0) -> Request:
        """The same to the backend's own address, routed as usual."""
        payload = self._payload(kind, port)
        awaited = kind != UDP or bool(payload)
        return Request(kind, self.direct_source, self.address, None, port, 0, payload, awaited)

    def _payload(self, kind: str, port: int) -> bytes:
        return self.payloads.get(port, b"") if kind == UDP else b""

    def from_large_link(self) -> Request | None:
        """A SYN as from a client on that link: the MSS of the answer may be by its MTU."""
        if self.large_source is None or not self.tcp:
            return None
        return Request(TCP, self.large_source, self.vip, self.path, self.tcp[0])

    def from_unused_address(self) -> Request:
        """An echo whose reply goes to nobody, along the backend's default route."""
        source = UNUSED_ADDRESSES[self.vip.version]
        return Request(ECHO, source, self.vip, self.path, awaited=False)

    def of_size(self, size: int) -> Request:
        """A packet of so many bytes on the network that must not be fragmented."""
        if isinstance(self.path, TunnelPath):
            return Request(ECHO, self.path.local, self.path.remote, None, size=size)
        return Request(ECHO, self.source, self.address, self.path, size=size)

    def over_path(self, address: IPAddress, source: IPAddress) -> Request:
        """An echo to another address of the backend, over the path of clients' packets."""
        return Request(ECHO, source, address, self.path)


def plan_targets(observed: Observation, macs: MacTable) -> list[Target]:
    """All targets that can be reached: there is a route and, for l2, a MAC."""
    sources = observed.sources
    found: dict[tuple[str, IPAddress, Tunnel | None], list[VirtualService]] = {}
    backends: dict[str, Backend] = {}
    for service in observed.config.services:
        for backend in service.backends:
            if observed.routes.serves_here(backend):
                continue
            tunnel = service.tunnel_of(backend)
            backends[backend.key] = backend
            for vip in service.vips:
                found.setdefault((backend.key, vip, tunnel), []).append(service)
    targets = []
    for (key, vip, tunnel), services in found.items():
        backend = backends[key]
        source = sources.toward(backend, vip.version)
        address = backend.address(vip.version) or backend.addresses[0]
        direct = sources.to(address, address.version)
        reached = _path(observed, macs, backend, vip, tunnel)
        if source is None or direct is None or reached is None:
            continue
        path, interface = reached
        targets.append(
            Target(
                backend=backend,
                vip=vip,
                path=path,
                source=source,
                direct_source=direct,
                interface=interface,
                services=tuple(service.name for service in services),
                tcp=_ports(services, Protocol.TCP),
                udp=_ports(services, Protocol.UDP),
                mtu=observed.host.links[interface].mtu,
                payloads=_udp_payloads(services),
                large_source=_large_source(observed, interface, vip) if tunnel is None else None,
            )
        )
    return targets


def _large_source(observed: Observation, interface: str, vip: IPAddress) -> IPAddress | None:
    links = observed.host.links
    large = {
        name
        for name in observed.config.interfaces
        if name in links and links[name].mtu > links[interface].mtu
    }
    own = (
        held.address.ip
        for held in observed.host.addresses
        if held.interface in large and held.address.version == vip.version and held.native
    )
    return next((a for a in own if not a.is_link_local and a not in observed.vips), None)


def limit_targets(targets: Sequence[Target]) -> list[Target]:
    """The first ones, as many as there are numbers for their requests."""
    left = _MAX_REQUESTS
    for count, target in enumerate(targets):
        left -= 2 * len(target.tcp) + 2 * len(target.udp) + 8
        if left < 0:
            return list(targets[:count])
    return list(targets)


def first_requests(targets: Iterable[Target]) -> Iterator[Request]:
    """The requests for every target."""
    for target in targets:
        for port in target.tcp:
            yield target.to_vip(TCP, port)
            yield target.to_backend(TCP, port)
        for port in target.udp:
            yield target.to_vip(UDP, port)
            yield target.to_backend(UDP, port)
        if not target.tcp:
            yield target.to_vip(ECHO)
        if (as_client := target.from_large_link()) is not None:
            yield as_client
        yield target.from_unused_address()
        yield target.of_size(0)
        yield target.of_size(target.mtu)


def _path(
    observed: Observation, macs: MacTable, backend: Backend, vip: IPAddress, tunnel: Tunnel | None
) -> tuple[L2Path | TunnelPath, str] | None:
    """The path of packets for a VIP, and the interface that they leave by."""
    if tunnel is None:
        address = backend.address(vip.version)
        hop = observed.routes.hops.get(address) if address is not None else None
        if hop is None:
            return None
        mac = min(macs.get((hop.interface, hop.address), ()), default=b"")
        return (L2Path(hop.interface, mac), hop.interface) if mac else None
    outer = observed.routes.endpoints.get(outer_address(backend))
    if outer is None:
        return None
    mac = bytes.fromhex(vxlan_mac(outer.remote).replace(":", ""))
    mac = mac if tunnel is Tunnel.VXLAN else b""
    return TunnelPath(tunnel, outer.local, outer.remote, mac), outer.interface


def _ports(services: list[VirtualService], protocol: Protocol) -> tuple[int, ...]:
    """The ports that a server must listen on: single ones, and those that monitors probe.

    Within a range nobody has to listen on any particular port.
    """
    ports: dict[int, None] = {}
    for service in services:
        if protocol not in service.protocols:
            continue
        for monitor in service.health:
            port = monitor.port
            if port and monitor.by_vip and any(port in known for known in service.ports):
                ports[port] = None
        single = [r.first for r in service.ports if r.first == r.last and r.first]
        ports |= dict.fromkeys(single[:_MAX_PORTS])
    return tuple(ports)


def _udp_payloads(services: Iterable[VirtualService]) -> dict[int, bytes]:
    """By port, what a UDP server replies to: a monitor's request, and DNS for its usual port.

    No reply to anything else tells nothing.
    """
    found: dict[int, bytes] = {}
    for service in services:
        if Protocol.UDP not in service.protocols:
            continue
        for monitor in service.health:
            payload = _payload_of(monitor)
            if payload:
                for port in _monitor_ports(service, monitor):
                    found.setdefault(port, payload)
    found.setdefault(_DNS_PORT, _DNS_ROOT)
    return found


def _payload_of(monitor: HealthMonitor) -> bytes:
    probe = monitor.probe
    if isinstance(probe, UdpProbe):
        return probe.send.encode() if probe.expect else b""
    if isinstance(probe, DnsProbe):
        try:
            query = dns.message.make_query(probe.name, probe.record)
        except (dns.exception.DNSException, ValueError):
            return b""
        return query.to_wire()
    return b""


def _monitor_ports(service: VirtualService, monitor: HealthMonitor) -> list[int]:
    """The port that the monitor names, else the service's single ones."""
    if monitor.port:
        return [monitor.port]
    return [ports.first for ports in service.ports if ports.first == ports.last]
