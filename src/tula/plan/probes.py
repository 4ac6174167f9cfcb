"""Which probes there are: what each monitor asks of each backend, from where, by which way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tula.model.config import Backend, Config, Forwarding, IPAddress, VirtualService
from tula.model.health import ProbeSocket, ProbeTarget
from tula.model.host import HostView
from tula.model.monitor import HealthMonitor
from tula.plan.probe_sysctls import InterfaceRequirement, ReplyPath, plan_requirements
from tula.plan.routes import Routes
from tula.plan.usable import idle_interfaces, why_unreached

_USUAL_PORTS = {"http": 80, "https": 443, "dns": 53}
_PORTLESS = frozenset({"icmp", "script"})


@dataclass(frozen=True, slots=True)
class PlannedProbe:
    """One monitor's question to one backend; ``position`` is the monitor's in its service.

    ``direct`` asks the same of the backend's own address, of the VIP's version if it has one, to
    tell a backend that is down from one that only lacks the VIP; None if ``target`` is that.
    ``interfaces`` are those by which its answers may come in, if it is not direct. ``obstacle`` is
    why this machine cannot ask now: then its silence says nothing of the backend.
    """

    service: str
    backend: str
    position: int
    target: ProbeTarget
    direct: ProbeTarget | None = None
    interfaces: frozenset[str] = frozenset()
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """All probes of a configuration, and what the machine needs for those through the data path.

    ``versions`` are the IP versions (4, 6) that need a rule and a route, ``needs`` what the
    interfaces must allow for the answers, by name. ``problems`` tell of probes that cannot be.
    """

    probes: tuple[PlannedProbe, ...] = ()
    problems: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    needs: Mapping[str, InterfaceRequirement] | None = None


def probe_destinations(config: Config) -> set[IPAddress]:
    """The VIPs whose routes ``plan_probes`` needs in its HostView, beside ``backend_addresses``."""
    return {vip for service in config.services if service.probed for vip in service.vips}


def probed_neighbours(config: Config, host: HostView, routes: Routes) -> set[tuple[int, IPAddress]]:
    """The neighbours whose MACs must be known before the first probes: interface index, address.

    A probe that has to wait for its neighbour's MAC is lost: when that is known the kernel takes
    the packet's own route for it, which is lo (neigh_update, neighbour.c). Clients' packets have no
    route of this machine's yet, and are not lost.
    """
    return {
        (host.links[hop.interface].index, hop.address)
        for service in config.services
        if service.probed
        for backend in service.backends
        if service.forwarding_of(backend) is Forwarding.L2
        for hop in routes.hops_of(backend, service.versions).values()
    }


def plan_probes(
    config: Config, host: HostView, routes: Routes, socket_of: Callable[[str, str], ProbeSocket]
) -> ProbePlan:
    """The probes of a configuration whose ``reach`` has no problems.

    ``socket_of`` tells how a probe names a backend, by its service and ``Backend.key``.
    """
    sources = Sources(config, host)
    probes: list[PlannedProbe] = []
    problems: dict[str, None] = {}
    answers: set[ReplyPath] = set()
    for service in config.services:
        idle = idle_interfaces(service, host, routes) if service.health else ""
        for position, monitor in enumerate(service.health):
            port = _port(service, monitor)
            if port is None:
                problems[
                    f"{service.name}: a check of type {monitor.type} needs a port, and the service "
                    "takes any; give via: direct and port"
                ] = None
                continue
            for backend in service.backends:
                asked = (service.name, backend.name, position)
                if not monitor.by_vip:
                    own_targets = _direct(service, backend, port, sources)
                    if monitor.auxiliary:
                        del own_targets[1:]  # an agent that listens on one address is enough
                    for asked_at in own_targets:
                        why = idle or why_unreached(
                            service, backend, asked_at.address.version, routes
                        )
                        probes.append(PlannedProbe(*asked, asked_at, obstacle=why))
                    continue
                for vip in service.vips:
                    source = sources.toward(backend, vip.version)
                    if source is None:
                        problems[
                            f"{service.name}: no address of its own of IPv{vip.version} to probe "
                            f"from; give one to this machine, beside the VIP {vip}"
                        ] = None
                        continue
                    named = socket_of(service.name, backend.key)
                    target = ProbeTarget(vip, port, source, named.mark, named.priority)
                    own = backend.address(vip.version) or next(iter(backend.addresses), source)
                    direct = ProbeTarget(own, port)
                    paths = set(_answers(service, backend, target, host, routes))
                    names = frozenset(answer.interface for answer in paths)
                    why = idle or why_unreached(service, backend, vip.version, routes)
                    probes.append(PlannedProbe(*asked, target, direct, names, why))
                    answers |= paths
    return ProbePlan(
        probes=tuple(probes),
        problems=tuple(problems),
        versions=tuple(
            sorted({each.target.address.version for each in probes if each.target.source})
        ),
        needs=plan_requirements(answers, host, routes),
    )


def _port(service: VirtualService, monitor: HealthMonitor) -> int | None:
    """The monitor's own port, else the service's; None where neither names one.

    Of a service with ranges alone, the one that is usual for the kind, if it is in them.
    """
    if monitor.port:
        return monitor.port
    if monitor.type == "icmp":
        return 0
    single = [ports.first for ports in service.ports if ports.first == ports.last]
    usual = _USUAL_PORTS.get(monitor.type)
    if single:
        return single[0]
    if usual is not None and (not service.ports or any(usual in p for p in service.ports)):
        return usual
    if service.ports:
        return max(service.ports[0].first, 1)
    return 0 if monitor.type in _PORTLESS else None


def _direct(
    service: VirtualService, backend: Backend, port: int, sources: Sources
) -> list[ProbeTarget]:
    """The backend's addresses: of the VIPs' versions, or all if it has none of those."""
    if backend.is_self:
        own = (sources.to(None, version) for version in service.versions)
        return [ProbeTarget(address, port) for address in own if address is not None]
    fitting = [a for a in backend.addresses if a.version in service.versions]
    return [ProbeTarget(address, port) for address in fitting or backend.addresses]


def _answers(
    service: VirtualService, backend: Backend, target: ProbeTarget, host: HostView, routes: Routes
) -> Iterator[ReplyPath]:
    """Where answers from the VIP may come in: by the way to the backend, or to the source. Those of
    this machine come by lo, which asks for nothing."""
    if routes.serves_here(backend):
        return
    endpoints = routes.endpoints_of(backend)
    if service.forwarding_of(backend) is Forwarding.L3 and endpoints is not None:
        yield ReplyPath(endpoints.interface, target.address)
    own = backend.address(target.address.version)
    route = host.routes.get(own) if own is not None else None
    if route is not None and route.kind == "unicast":
        yield ReplyPath(route.interface, target.address)
    for held in host.addresses:
        if held.address.ip == target.source and held.interface in host.links:
            yield ReplyPath(held.interface, target.address)


class Sources:
    """The machine's addresses to probe from. Never a VIP: answers must come back to this machine,
    and a VIP's packets are for the backends."""

    def __init__(self, config: Config, host: HostView) -> None:
        vips = {vip for service in config.services for vip in service.vips}
        own = [
            (held.interface, held.address.ip)
            for held in host.addresses
            if held.native and held.address.ip not in vips and _usable(held.address.ip)
        ]
        listed = [address for interface, address in own if interface in config.interfaces]
        self._known = [*listed, *(address for _, address in own if address not in listed)]
        self._routes = host.routes

    def toward(self, backend: Backend, version: int) -> IPAddress | None:
        """The address that the machine would send from to the backend, else any of its own."""
        return self.to(backend.address(version), version)

    def to(self, address: IPAddress | None, version: int) -> IPAddress | None:
        """The same, to any address whose route is known, or to none in particular."""
        route = self._routes.get(address) if address is not None else None
        if route is not None and route.source in self._known:
            return route.source
        return _first(address for address in self._known if address.version == version)


def _usable(address: IPAddress) -> bool:
    return not (address.is_link_local or address.is_loopback or address.is_multicast)


def _first(addresses: Iterable[IPAddress]) -> IPAddress | None:
    return next(iter(addresses), None)
