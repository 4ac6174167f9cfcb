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
    """By Tula's table, its own addresses, VIPs that Tula put here; else by the interfaces."""
    # A VIP is on every backend, and tells nothing.
    own = scene.own - scene.vips
    backends = {
        backend.name: None
        for service in scene.config.services
        for backend in service.backends
        if own & set(backend.addresses)
    }
    named = any(address in own for _, address in scene.config.load_balancers)
    holds = any(held.ours for held in scene.host.addresses)
    balancer = scene.table or named or holds
    if not balancer and not backends:
        balancer = any(name in scene.host.links for name in scene.config.interfaces)
    return Roles(balancer, tuple(backends))
