"""A tunnel as both of its ends have to know it, for status and for the backend itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tula.model.config import (
    Backend,
    IPAddress,
    Tunnel,
    TunnelSettings,
    VirtualService,
)
from tula.model.desired import TunnelEndpoints
from tula.plan.tunnels import outer_address, vxlan_mac


@dataclass(frozen=True, slots=True)
class Tunnels:
    """``endpoints`` are by ``outer_address``."""

    settings: TunnelSettings
    endpoints: Mapping[IPAddress, TunnelEndpoints]

    def describe(self, service: VirtualService, backend: Backend) -> dict[str, Any] | None:
        """What the other endpoint must know; None for l2, and where no route leads to it."""
        tunnel = service.tunnel_of(backend)
        endpoints = self.endpoints.get(outer_address(backend)) if tunnel is not None else None
        if tunnel is None or endpoints is None:
            return None
        found: dict[str, Any] = {
            "kind": str(tunnel),
            "local": str(endpoints.local),
            "remote": str(endpoints.remote),
        }
        if tunnel is Tunnel.VXLAN:
            found |= {"id": self.settings.vxlan_id, "port": self.settings.vxlan_port}
            found |= {"mac": vxlan_mac(endpoints.remote)}
        elif tunnel is Tunnel.GUE:
            found |= {"port": self.settings.gue_port}
        return found
