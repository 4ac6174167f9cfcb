"""How services and backends stand: states and counts, as ``tula status`` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tula.daemon.balancer import TableUse
from tula.dataplane.nft.ruleset import Count
from tula.model.config import Backend, Config, VirtualService


def describe_status(
    config: Config,
    counts: Mapping[tuple[str, str], Count],
    named: Mapping[str, Count],
    tables: Iterable[TableUse] = (),
) -> dict[str, Any]:
    """The answer of ``tula status --json``.

    ``counts`` are by (service, Backend.key); ``named`` are those of the data path as a whole,
    such as packets that came for a service without a backend.
    """
    by_service: dict[str, Count] = {}
    for (service, _), count in counts.items():
        by_service[service] = by_service.get(service, Count()) + count
    return {
        "services": [
            _service(service, by_service.get(service.name, Count()), counts)
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
    service: VirtualService, total: Count, counts: Mapping[tuple[str, str], Count]
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
            for backend in service.backends
        ],
    }


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
        "tunnel": None,
    }
