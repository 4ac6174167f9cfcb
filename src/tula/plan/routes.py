"""How this machine reaches what a configuration names, and every reason why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from tula.model.announce import ENGINES, announced_by
from tula.model.config import (
    Backend,
    Config,
    Forwarding,
    IPAddress,
    Protocol,
    VirtualService,
)
from tula.model.desired import Announce, DesiredVip, NextHop, TunnelEndpoints
from tula.model.host import HostView
from tula.model.problem import Path, Problem
from tula.plan.balancer_cautions import balancer_cautions, balancer_problems
from tula.plan.bgp import bgp_routers, plan_bgp
from tula.plan.cautions import Caution, down_interface, interfaces_down, plan_cautions
from tula.plan.high_availability import vips_by
from tula.plan.own_cautions import own_cautions
from tula.plan.tunnels import outer_address

Subnet = IPv4Network | IPv6Network
_ON_INTERFACE = frozenset({Announce.STATIC, Announce.VRRP})
"""The ways that put a VIP on an interface of a balancer."""


@dataclass(slots=True)
class Routes:
    """Next hops by backend address, tunnels' endpoints by ``outer_address``, the VIPs to hold, and
    what is wrong. ``refusals`` are those of the problems that no waiting mends; ``cautions`` are
    told, and keep nothing from being done.
    """

    hops: dict[IPAddress, NextHop] = field(default_factory=dict)
    own: set[IPAddress] = field(default_factory=set)
    """The backends' addresses that are this machine's."""
    endpoints: dict[IPAddress, TunnelEndpoints] = field(default_factory=dict)
    vips: list[DesiredVip] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    refusals: list[Problem] = field(default_factory=list)
    cautions: list[Caution] = field(default_factory=list)

    @property
    def held(self) -> list[DesiredVip]:
        """The VIPs that Tula is to put on an interface of this machine."""
        return [vip for vip in self.vips if vip.announce is Announce.STATIC]

    @property
    def local(self) -> list[DesiredVip]:
        """Those that are on an interface of this machine, at times at least."""
        return [vip for vip in self.vips if vip.announce in _ON_INTERFACE]

    def serves_here(self, backend: Backend) -> bool:
        """Whether the backend is this machine."""
        return backend.is_self or not self.own.isdisjoint(backend.addresses)

    def endpoints_of(self, backend: Backend) -> TunnelEndpoints | None:
        """Where the backend's tunnels end; None where no route leads to it, and for this machine,
        which needs none."""
        return None if backend.is_self else self.endpoints.get(outer_address(backend))

    _found: dict[tuple[tuple[str, ...], tuple[int, ...]], dict[int, NextHop]] = field(
        default_factory=dict
    )

    def hops_of(self, backend: Backend, versions: tuple[int, ...]) -> Mapping[int, NextHop]:
        """A backend's next hops for l2, by those of these IP versions that it is reached by."""
        # Asked for every service, and the same for all that list the backend.
        key = (backend.texts, versions)
        found = self._found.get(key)
        if found is None:
            hops = ((a.version, self.hops.get(a)) for a in backend.addresses)
            found = {version: hop for version, hop in hops if hop and version in versions}
            self._found[key] = found
        return found


def backend_addresses(config: Config) -> set[IPAddress]:
    """The destinations whose routes ``plan_routes`` needs in its HostView."""
    backends = {
        address
        for service in config.services
        for backend in service.backends
        for address in backend.addresses
    }
    return backends | bgp_routers(config)


def takes_own_address(config: Config, host: HostView) -> bool:
    """Whether a service takes TCP ports of an address that the machine has by itself, or may have:
    then ``plan_routes`` needs to know the ports of its SSH."""
    native = _native(config, host)
    return any(
        Protocol.TCP in service.protocols
        and (service.announce is False or not native.isdisjoint(service.vips))
        for service in config.services
    )


def plan_routes(config: Config, host: HostView, *, force: bool = False) -> Routes:
    """Checks interfaces, backends and VIPs against the machine; collects every problem.

    ``force`` allows a service to take the machine's own SSH port, and what nothing works with.
    """
    routes = Routes()
    for position, name in enumerate(config.interfaces):
        if name not in host.links:
            routes.problems.append(
                Problem(("interfaces", position), f"no interface {name!r} here; {_known(host)}")
            )
    complained: set[IPAddress] = set()
    refused: set[IPAddress] = set()
    owned: dict[IPAddress, str] = {}
    native = _native(config, host)
    subnets = _listed_subnets(config, host)
    looked: set[tuple[bool, tuple[str, ...], tuple[int, ...]]] = set()
    for service in config.services:
        for backend in service.backends:
            l3 = service.forwarding_of(backend) is Forwarding.L3
            # Many services may have the same backends: what was found holds for all of them.
            if (how := (l3, backend.texts, service.versions)) in looked:
                continue
            looked.add(how)
            if _is_own(service, backend, host, routes):
                continue
            if l3:
                _reach_tunnel(config, service, backend, host, routes, refused)
            else:
                _reach_backend(service, backend, host, routes, complained)
        # A VIP that was here before is used, and never removed.
        foreign = [vip for vip in service.vips if vip not in native]
        if announced_by(config, service) in _ON_INTERFACE:
            _reach_vips(service, foreign, subnets, host, routes, owned)
        if not force:
            routes.refusals += _ssh_problems(service, native, host)
    routes.problems += plan_bgp(config, host).problems
    routes.vips = _wanted_vips(config, owned)
    routes.problems += balancer_problems(config, host)
    found = plan_cautions(config, host, routes.hops, routes.endpoints)
    found += balancer_cautions(config, host)
    found += own_cautions(config, host, routes.serves_here)
    routes.refusals += [each.problem for each in found if each.severe and not force]
    routes.problems += routes.refusals
    routes.cautions = [each for each in found if force or not each.severe]
    return routes


def _native(config: Config, host: HostView) -> set[IPAddress]:
    """The addresses that the machine has by itself. VIPs by VRRP are on whichever balancer is
    active: that they are here says nothing."""
    held = {held.address.ip for held in host.addresses if held.native}
    return held - vips_by(config, Announce.VRRP) if config.high_availability.vrrp else held


def _wanted_vips(config: Config, owned: Mapping[IPAddress, str]) -> list[DesiredVip]:
    services: dict[IPAddress, list[str]] = {}
    how: dict[IPAddress, Announce] = {}
    for service in config.services:
        announce = announced_by(config, service)
        for vip in service.vips:
            services.setdefault(vip, []).append(service.name)
            # Of two services with one VIP, the one that puts it on this machine says how.
            if vip not in how or how[vip] is Announce.EXTERNAL:
                how[vip] = announce
    return [
        DesiredVip(vip, owned.get(vip, ""), tuple(services[vip]), announce)
        for vip, announce in how.items()
        if vip in owned or announce not in _ON_INTERFACE
    ]


def _known(host: HostView) -> str:
    return "this machine has " + ", ".join(sorted(name for name in host.links if name != "lo"))


def _but_down(host: HostView) -> str:
    """Which interfaces are down, as the likely reason for what is missing."""
    down = interfaces_down(host)
    if not down:
        return ""
    return f" ({', '.join(down)} {'is' if len(down) == 1 else 'are'} down)"


def _is_own(service: VirtualService, backend: Backend, host: HostView, routes: Routes) -> bool:
    """Whether the backend is this machine: then its packets take no way at all."""
    found = ((address, host.routes.get(address)) for address in backend.addresses)
    local = {address for address, route in found if route is not None and route.kind == "local"}
    routes.own |= local
    needed = (address for address in backend.addresses if address.version in service.versions)
    other = next((address for address in needed if address not in local), None)
    if local and other is not None:
        path: Path = ("services", service.name, "backends", backend.name, "address")
        message = (
            f"{min(local, key=str)} is an address of this machine, and {other} is not; give the "
            "addresses of one machine"
        )
        routes.problems.append(Problem(path, message))
    return backend.is_self or bool(local)


def _reach_backend(
    service: VirtualService,
    backend: Backend,
    host: HostView,
    routes: Routes,
    complained: set[IPAddress],
) -> None:
    path: Path = ("services", service.name, "backends", backend.name, "address")
    for address in backend.addresses:
        if address.version not in service.versions or address in routes.hops:
            continue
        if address in complained:
            continue
        route = host.routes.get(address)
        message = ""
        if down := down_interface(address, host):
            message = f"{address} is on {down}, which is down; set it up: ip link set {down} up"
        elif route is None or route.kind != "unicast":
            message = (
                f"no route to {address}{_but_down(host)}; give a backend on the same subnet, or "
                "use forwarding: l3"
            )
        elif route.gateway is not None:
            message = (
                f"{address} is not on-link (it is behind {route.gateway}){_but_down(host)}, so its "
                "MAC cannot be written; give a backend on the same subnet, or use forwarding: l3"
            )
        if message or route is None:
            complained.add(address)
            routes.problems.append(Problem(path, message))
        else:
            routes.hops[address] = NextHop(address, route.interface)


def _reach_tunnel(
    config: Config,
    service: VirtualService,
    backend: Backend,
    host: HostView,
    routes: Routes,
    refused: set[IPAddress],
) -> None:
    """Decides between which addresses a backend's tunnels are."""
    remote = outer_address(backend)
    if remote in routes.endpoints or remote in refused:
        return
    path: Path = ("services", service.name, "backends", backend.name, "address")
    route = host.routes.get(remote)
    if route is None or route.kind != "unicast" or route.interface not in host.links:
        down = down_interface(remote, host)
        message = (
            f"{remote}, where its tunnel would end, is on {down}, which is down; set it up: "
            f"ip link set {down} up"
            if down
            else f"no route to {remote}, where its tunnel would end{_but_down(host)}; add one"
        )
    else:
        local = _own_end(config, remote.version, host) or route.source
        if local is not None:
            routes.endpoints[remote] = TunnelEndpoints(local, remote, route.interface)
            return
        message = f"no address of this machine's to send to {remote} from; give it one"
    refused.add(remote)
    routes.problems.append(Problem(path, message))


def _own_end(config: Config, version: int, host: HostView) -> IPAddress | None:
    """The address under which backends know this machine: they take tunnels only from those."""
    own = {held.address.ip for held in host.addresses if held.native}
    named = (address for _, address in config.load_balancers if address.version == version)
    return next((address for address in named if address in own), None)


def _listed_subnets(config: Config, host: HostView) -> list[tuple[str, Subnet]]:
    """The subnets of the listed interfaces, the narrowest first, equals in the list's order."""
    found = [
        (name, held.address.network)
        for name in config.interfaces
        for held in host.addresses
        if held.interface == name and held.native
    ]
    subnets = [(name, net) for name, net in found if net.prefixlen < net.max_prefixlen]
    return sorted(subnets, key=lambda entry: -entry[1].prefixlen)


def _reach_vips(
    service: VirtualService,
    vips: list[IPAddress],
    subnets: list[tuple[str, Subnet]],
    host: HostView,
    routes: Routes,
    owned: dict[IPAddress, str],
) -> None:
    """Decides on which interface this machine takes each of the VIPs."""
    named = service.announce if isinstance(service.announce, str) else ""
    named = "" if named in ENGINES else named
    if named and named not in host.links:
        path: Path = ("services", service.name, "announce")
        routes.problems.append(Problem(path, f"no interface {named!r} here; {_known(host)}"))
        return
    for vip in vips:
        interface = named or next((name for name, net in subnets if vip in net), "")
        if not interface:
            routes.problems.append(
                Problem(
                    ("services", service.name, "vip"),
                    f"no subnet of the listed interfaces holds {vip}{_but_down(host)}; give "
                    "announce: false if it is routed to this machine, or announce: INTERFACE",
                )
            )
        elif owned.setdefault(vip, interface) != interface:
            routes.problems.append(
                Problem(
                    ("services", service.name, "announce"),
                    f"another service announces {vip} on {owned[vip]}; name one interface for it",
                )
            )


def _ssh_problems(service: VirtualService, native: set[IPAddress], host: HostView) -> list[Problem]:
    """VIPs that are this machine's own addresses, or are as soon as somebody puts them there: with
    ``announce: false`` that is not Tula's to say, and may differ from one moment to the next."""
    if Protocol.TCP not in service.protocols:
        return []
    ports = sorted(
        port
        for port in host.ssh_ports
        if not service.ports or any(port in ports for ports in service.ports)
    )
    if not ports:
        return []
    found = []
    for vip in service.vips:
        if vip in native:
            own = f"{vip} is this machine's own address"
        elif service.announce is False:
            own = f"{vip} (announce: false) may become this machine's own address"
        else:
            continue
        found.append(
            Problem(
                ("services", service.name, "vip"),
                f"{own} and port {ports[0]} is its SSH: the service would swallow it; take another "
                "VIP or port, or override with --force",
            )
        )
    return found
