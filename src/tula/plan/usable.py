"""What is left of an accepted configuration while this machine lacks something that it names.

A card that is taken out must not keep the daemon from what goes over the other one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tula.model.config import Backend, Config, Forwarding, VirtualService
from tula.model.health import BackendName
from tula.model.host import HostView
from tula.model.problem import Path
from tula.plan.routes import Routes
from tula.plan.tunnels import outer_address


def usable_config(config: Config, host: HostView, lacking: Collection[Path] = ()) -> Config:
    """The configuration without interfaces that are gone, and without the backends of ``lacking``:
    the services' and backends' tunnels that this kernel cannot make, as ``unsupported`` has them.
    """
    names = {str(path[1]) for path in lacking}
    return replace(
        config,
        interfaces=tuple(name for name in config.interfaces if name in host.links),
        services=tuple(
            _without_tunnels(service, lacking) if service.name in names else service
            for service in config.services
        ),
    )


def _without_tunnels(service: VirtualService, lacking: Collection[Path]) -> VirtualService:
    def can_be(backend: Backend) -> bool:
        if service.tunnel_of(backend) is None:
            return True
        whose: Path = () if backend.tunnel is None else ("backends", backend.name)
        return ("services", service.name, *whose, "tunnel") not in lacking

    return replace(service, backends=tuple(filter(can_be, service.backends)))


def awaits_interface(config: Config, host: HostView) -> bool:
    """Whether an interface that it names is not here: at boot it may come later, and bring the
    routes and subnets with it that are missing too."""
    announced = (s.announce for s in config.services if isinstance(s.announce, str))
    return any(name not in host.links for name in (*config.interfaces, *announced))


def unreached_backends(config: Config, routes: Routes) -> frozenset[BackendName]:
    """The backends that no way leads to now; they stay in the configuration, and get nothing.

    A backend is out for both IP versions when one of them does not reach it: one table serves
    both. But a version that reaches no backend of a service any more (IPv6 addresses go with
    their link) takes nothing from the other.
    """
    found: set[BackendName] = set()
    for service in config.services:
        versions: Collection[int] = service.versions
        if not all(_is_reached(service, backend, routes, versions) for backend in service.backends):
            versions = _living_versions(service, routes)
            found.update(
                (service.name, backend.name)
                for backend in service.backends
                if not _is_reached(service, backend, routes, versions)
            )
    return frozenset(found)


def _living_versions(service: VirtualService, routes: Routes) -> Collection[int]:
    """The IP versions that some backend is reached by; all, if there are none."""
    if any(routes.serves_here(backend) for backend in service.backends):
        return service.versions
    living = {
        address.version
        for backend in service.backends
        for address in backend.addresses
        if address.version in service.versions
        and service.forwarding_of(backend) is Forwarding.L2
        and address in routes.hops
    }
    return living or service.versions


def _is_reached(
    service: VirtualService, backend: Backend, routes: Routes, versions: Collection[int]
) -> bool:
    if routes.serves_here(backend):
        return True
    if service.forwarding_of(backend) is Forwarding.L3:
        return routes.endpoints_of(backend) is not None
    return all(
        address in routes.hops for address in backend.addresses if address.version in versions
    )


def why_unreached(service: VirtualService, backend: Backend, version: int, routes: Routes) -> str:
    """Why no packet of that IP version can go to the backend now; empty when one can."""
    if routes.serves_here(backend):
        return ""
    if service.forwarding_of(backend) is Forwarding.L3:
        outer = outer_address(backend)
        return "" if outer in routes.endpoints else f"no route to {outer}"
    address = backend.address(version)
    return "" if address is None or address in routes.hops else f"no route to {address}"


def idle_interfaces(service: VirtualService, host: HostView, routes: Routes) -> str:
    """Why no packet can go to any backend of the service: no interface on the way has a carrier.

    Empty while one has: then backends behind the others are down, for all that matters.
    """
    names: set[str] = set()
    if any(routes.serves_here(backend) for backend in service.backends):
        return ""
    for backend in service.backends:
        if service.forwarding_of(backend) is Forwarding.L3:
            endpoints = routes.endpoints_of(backend)
            names |= {endpoints.interface} if endpoints is not None else set()
        else:
            hops = routes.hops_of(backend, service.versions)
            names |= {hop.interface for hop in hops.values()}
    idle = {name for name in names if name in host.links and not host.links[name].carrier}
    if not names or idle != names:
        return ""
    return f"{' and '.join(sorted(idle))} {'has' if len(idle) == 1 else 'have'} no carrier"
