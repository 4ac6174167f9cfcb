"""Which of the document's machines this one is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tula.doctor.scene import Scene


@dataclass(frozen=True, slots=True)
class Roles:
    """A machine may be balancer and backend at once; ``backends`` are its names."""

    balancer: bool
    backends: tuple[str, ...] = ()


def roles_of(scene: Scene) -> Roles:
    """By its own addresses, VIPs that Tula put here, Tula's table; else by the interfaces."""
    # A VIP is on every backend, and tells nothing.
    own = scene.own - scene.vips
    backends = {
        backend.name: None
        for service in scene.config.services
        for backend in service.backends
        if own & set(backend.addresses)
    }
    named = any(address in own for _, address in scene.config.load_balancers)
    holds = any(held.ours and held.address.ip in scene.vips for held in scene.host.addresses)
    # A backend may balance by another document, whose table is here then.
    balancer = named or holds or (scene.table and (scene.same or not backends))
    if not balancer and not backends:
        balancer = any(name in scene.host.links for name in scene.config.interfaces)
    return Roles(balancer, tuple(backends))
