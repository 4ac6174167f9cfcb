"""How services and backends stand: states and counts, as ``tula status`` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tula.daemon.balancer import TableUse
from tula.dataplane.nft.ruleset import Count
from tula.model.config import (
    Backend,
    Config,
    Forwarding,
    IPAddress,
    Tunnel,
    TunnelSettings,
    VirtualService,
)
from tula.plan.tunnels import Outer, outer_address, vxlan_mac


def describe_status(
    config: Config,
    counts: Mapping[tuple[str, str], Count],
    named: Mapping[str, Count],
    tables: Iterable[TableUse] = (),
    outers: Mapping[IPAddress, Outer] | None = None,
) -> dict[str, Any]:
    """The answer of ``tula status --json``.

    ``counts`` are by (service, Backend.key); ``named`` are those of the data path as a whole,
    such as packets that came for a service without a backend; ``outers`` by ``outer_address``.
    """
    tunnels = _Tunnels(config.tunnels, outers or {})
    by_service: dict[str, Count] = {}
    for (service, _), count in counts.items():
        by_service[service] = by_service.get(service, Count()) + count
    return {
        "services": [
            _service(service, by_service.get(service.name, Count()), counts, tunnels)
            for service in config.services
        ],
        "counters": {
            name: {"packets": count.packets, "bytes": count.bytes}
            for name, count in sorted(named.items())
        },
        "connections": {
            table.name: {"entries": table.entries, "size": table.size} for table in tables
        },
    }


def _service(
    service: VirtualService,
    total: Count,
    counts: Mapping[tuple[str, str], Count],
    tunnels: _Tunnels,
) -> dict[str, Any]:
    return {
        "name": service.name,
        "vips": [str(vip) for vip in service.vips],
        "protocols": [str(protocol) for protocol in service.protocols],
        "ports": [str(ports) for ports in service.ports] or ["any"],
        "forwarding": str(service.forwarding),
        "scheduler": str(service.scheduler),
        "packets": total.packets,
        "bytes": total.bytes,
        "backends": [
            _backend(backend, counts.get((service.name, backend.key), Count()))
            | {"tunnel": tunnels.describe(service, backend)}
            for backend in service.backends
        ],
    }


@dataclass(frozen=True, slots=True)
class _Tunnels:
    settings: TunnelSettings
    outers: Mapping[IPAddress, Outer]

    def describe(self, service: VirtualService, backend: Backend) -> dict[str, Any] | None:
        """What the other end must know; None for l2, and where there is no way to it."""
        outer = self.outers.get(outer_address(backend))
        if service.forwarding is Forwarding.L2 or outer is None:
            return None
        found: dict[str, Any] = {
            "kind": str(service.tunnel),
            "local": str(outer.local),
            "remote": str(outer.remote),
        }
        if service.tunnel is Tunnel.VXLAN:
            found |= {"id": self.settings.vxlan_id, "port": self.settings.vxlan_port}
            found |= {"mac": vxlan_mac(outer.remote)}
        elif service.tunnel is Tunnel.GUE:
            found |= {"port": self.settings.gue_port}
        return found


def _backend(backend: Backend, count: Count) -> dict[str, Any]:
    addresses = [str(address) for address in backend.addresses]
    return {
        "name": backend.name,
        "address": addresses[0] if len(addresses) == 1 else addresses,
        "weight": backend.weight,
        # Nothing checks health without the daemon: in service, but unknown.
        "state": "unknown" if backend.weight else "draining",
        "packets": count.packets,
        "bytes": count.bytes,
    }
