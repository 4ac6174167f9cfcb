"""The validated document as the values that the rest of Tula works on."""

from __future__ import annotations

from tula.config.merged import Merged
from tula.config.models import DocumentModel
from tula.config.monitor import merged_checks, monitor_value, policy_value
from tula.model.config import (
    Backend,
    Config,
    Connections,
    MaglevSettings,
    MarkRange,
    Protocol,
    TunnelSettings,
    VirtualService,
)


def build(model: DocumentModel, services: list[Merged]) -> Config:
    """The Config of a document without problems."""
    settings = model.connections
    return Config(
        interfaces=tuple(model.interfaces),
        services=tuple(_service(service) for service in services),
        load_balancers=tuple(model.load_balancers.items()),
        connections=Connections(
            enabled=settings.enabled,
            size=settings.size,
            tcp=settings.tcp,
            tcp_half_open=settings.tcp_half_open,
            udp=settings.udp,
        ),
        maglev=MaglevSettings(slots=model.maglev.slots or None, seed=model.maglev.seed),
        marks=MarkRange(model.marks.first, model.marks.last),
        tunnels=TunnelSettings(
            vxlan_id=model.tunnels.vxlan_id,
            vxlan_port=model.tunnels.vxlan_port,
            gue_port=model.tunnels.gue_port,
        ),
    )


def _service(service: Merged) -> VirtualService:
    keys = service.keys
    monitors = merged_checks(keys.health) if keys.health else keys.checks
    return VirtualService(
        name=service.name,
        vips=tuple(keys.vip),
        # In one order, so that [udp, tcp] is the same service as [tcp, udp].
        protocols=tuple(protocol for protocol in Protocol if protocol in keys.protocol),
        ports=tuple(sorted(keys.ports)),
        forwarding=keys.forwarding,
        backends=tuple(
            Backend(name, tuple(backend.address), backend.weight)
            for name, backend in keys.backends.items()
        ),
        scheduler=keys.scheduler,
        affinity=keys.affinity,
        tunnel=keys.tunnel,
        announce=keys.announce,
        health=tuple(monitor_value(monitor) for monitor in monitors),
        policy=policy_value(keys.health),
    )
