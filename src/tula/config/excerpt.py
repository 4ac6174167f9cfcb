"""What of a configuration concerns one backend: enough to join by, and nothing else."""

from __future__ import annotations

from typing import Any

import yaml

from tula.model.announce import announced_by
from tula.model.config import SELF, Backend, Config, VirtualService
from tula.model.desired import Announce


def backend_excerpt(config: Config, name: str) -> str | None:
    """A configuration (YAML) of the services that the backend of this name is in, without other
    backends, health checks and whatever else the machine itself need not know; None if there is no
    such backend.

    Where a service calls the same address otherwise, it is that backend too, as for ``join --as``.
    """
    keys = {b.key for service in config.services for b in service.backends if b.name == name}
    services = {
        service.name: _service(config, service, mine)
        for service in config.services
        if (mine := [b for b in service.backends if b.name == name or b.key in keys])
    }
    if not services:
        return None
    tunnels = config.tunnels
    found = {
        "interfaces": list(config.interfaces),
        "load_balancers": {label: str(address) for label, address in config.load_balancers},
        "tunnels": {
            "vxlan_id": tunnels.vxlan_id,
            "vxlan_port": tunnels.vxlan_port,
            "gue_port": tunnels.gue_port,
        },
        "services": services,
    }
    return yaml.safe_dump(found, sort_keys=False, allow_unicode=True)


def _service(config: Config, service: VirtualService, backends: list[Backend]) -> dict[str, Any]:
    # A balancer that is a backend has to know whether its VIPs are always on it: an engine that
    # moves them is none of a backend's business.
    static = announced_by(config, service) is Announce.STATIC
    return {
        **({} if static else {"announce": False}),
        "vip": [str(vip) for vip in service.vips],
        "protocol": [str(protocol) for protocol in service.protocols],
        "ports": [str(ports) for ports in service.ports] or "any",
        "forwarding": str(service.forwarding),
        "tunnel": str(service.tunnel),
        "backends": {b.name: _backend(b) for b in backends},
    }


def _backend(backend: Backend) -> dict[str, Any]:
    own = {"forwarding": backend.forwarding, "tunnel": backend.tunnel}
    found = {key: str(value) for key, value in own.items() if value is not None}
    return {"address": SELF if backend.is_self else list(backend.texts)} | found
