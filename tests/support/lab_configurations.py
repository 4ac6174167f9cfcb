"""Documents for networks of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from tula.lab import Host, Network


def backends_of(*hosts: Host, weight: int = 100) -> dict[str, Any]:
    """The ``backends`` of a service: these hosts by their names, with all their addresses."""
    return {
        host.name: {"address": _usable(host.addresses("eth0")), "weight": weight} for host in hosts
    }


def _usable(addresses: list[str]) -> list[str]:
    return [text for text in addresses if not ip_address(text).is_link_local]


def service_of(network: Network, **keys: Any) -> dict[str, Any]:
    """An l2 service of the network's VIPs and backends, TCP port 80 unless ``keys`` differ."""
    return {
        "vip": [str(vip) for vip in network.vips],
        "ports": [80],
        "forwarding": "l2",
        "backends": backends_of(*network.backends),
        **keys,
    }


def write_config(
    path: Path, services: Mapping[str, Any], interfaces: tuple[str, ...] = ("eth0",), **top: Any
) -> Path:
    """Writes tula.yaml; ``top`` are further keys of the configuration."""
    configuration = {"interfaces": list(interfaces), "services": dict(services), **top}
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return path
