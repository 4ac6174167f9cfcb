"""What a backend may see of itself: its services and tunnels, and nothing of others. Pure.

A backend is known by its name, in whichever services that is. Thousands may ask every few seconds,
so nothing here looks at the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tula.engine.backend_view import view_backend
from tula.engine.tunnel_view import Tunnels
from tula.model.config import Backend, Config, IPAddress, VirtualService
from tula.model.desired import TunnelEndpoints
from tula.model.health import BackendName, BackendStatus, Override

Places = Mapping[str, tuple[tuple[VirtualService, Backend], ...]]
"""Where the backends of each name serve."""


def find_places(config: Config) -> Places:
    """All of a configuration's, to be kept for as long as it runs."""
    found: dict[str, list[tuple[VirtualService, Backend]]] = {}
    for service in config.services:
        for backend in service.backends:
            found.setdefault(backend.name, []).append((service, backend))
    return {name: tuple(places) for name, places in found.items()}


@dataclass(frozen=True, slots=True)
class OwnState:
    """What is known of all backends at ``now``, in seconds of the boot clock."""

    config: Config
    statuses: Mapping[BackendName, BackendStatus]
    overrides: Mapping[BackendName, Override]
    endpoints: Mapping[IPAddress, TunnelEndpoints]
    connections: Mapping[BackendName, int] | None
    now: float


def describe_own(
    name: str, places: tuple[tuple[VirtualService, Backend], ...], state: OwnState
) -> dict[str, Any]:
    """The backends of one name, as JSON has them."""
    tunnels = Tunnels(state.config.tunnels, state.endpoints)
    return {
        "name": name,
        "services": [_place(service, backend, state, tunnels) for service, backend in places],
    }


def _place(
    service: VirtualService, backend: Backend, state: OwnState, tunnels: Tunnels
) -> dict[str, Any]:
    name = (service.name, backend.name)
    view = view_backend(
        name,
        backend,
        state.statuses[name],
        state.overrides.get(name, Override()),
        state.now,
        state.connections,
    )
    return {
        "service": service.name,
        "vips": [str(vip) for vip in service.vips],
        "protocols": [str(protocol) for protocol in service.protocols],
        "ports": [str(ports) for ports in service.ports] or ["any"],
        "forwarding": str(service.forwarding_of(backend)),
        "addresses": [str(address) for address in backend.addresses],
        "state": view.state,
        "reason": view.reason,
        "weight": view.weight,
        "effective_weight": view.effective_weight,
        "connections": view.connections,
        "connections_estimated": view.connections_estimated,
        "overrides": [asdict(override) for override in view.overrides],
        "tunnel": tunnels.describe(service, backend),
    }
