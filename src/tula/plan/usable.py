"""What is left of an accepted configuration while this machine lacks something that it names.

A card that is taken out must not keep the daemon from what goes over the other one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tula.model.config import Backend, Config, Forwarding, VirtualService
from tula.model.health import BackendName
from tula.model.host import HostView
from tula.plan.routes import Routes
from tula.plan.tunnels import outer_address


def usable_config(config: Config, host: HostView, lacking: Collection[str] = ()) -> Config:
    """The configuration without interfaces that are gone, and without the backends of ``lacking``:
    services whose tunnels this kernel cannot make."""
    return replace(
        config,
        interfaces=tuple(name for name in config.interfaces if name in host.links),
        services=tuple(
            replace(service, backends=()) if service.name in lacking else service
            for service in config.services
        ),
    )


def awaits_interface(config: Config, host: HostView) -> bool:
    """Whether an interface that it names is not here: at boot it may come later, and bring the
    routes and subnets with it that are missing too."""
    announced = (s.announce for s in config.services if isinstance(s.announce, str))
    return any(name not in host.links for name in (*config.interfaces, *announced))


def unreached_backends(config: Config, routes: Routes) -> frozenset[BackendName]:
    """The backends that no way leads to now; they stay in the configuration, and get nothing."""
    return frozenset(
        (service.name, backend.name)
        for service in config.services
        for backend in service.backends
        if not _is_reached(service, backend, routes)
    )


def _is_reached(service: VirtualService, backend: Backend, routes: Routes) -> bool:
    if service.forwarding is Forwarding.L3:
        return outer_address(backend) in routes.endpoints
    return all(
        address in routes.hops
        for address in backend.addresses
        if address.version in service.versions
    )
