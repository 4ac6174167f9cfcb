"""What becomes of persistent clients: who keeps them, and what is said of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from tula.model.admission import IPNetwork
from tula.model.client_scopes import HeldClient
from tula.model.config import Backend, IPAddress, VirtualService
from tula.model.health import BackendName, BackendStatus
from tula.model.persistence import ClientsOfDrained
from tula.model.wording import describe_duration


@dataclass(frozen=True, slots=True)
class PersistentClient:
    """What persistence holds for a client: ``backend`` is a name, None where no backend of the
    service has the entry's address; ``kept``: new connections go there."""

    client: IPNetwork
    backend: str | None
    seconds: float | None
    kept: bool
    why: str = ""
    """Why the backend does not keep it."""


def keeps_clients(
    service: VirtualService, backend: Backend, statuses: Mapping[BackendName, BackendStatus]
) -> bool:
    """Whether new flows of the persistent clients that a backend has go on going there; the
    backend is one with the weight that counts."""
    if service.persistence is None:
        return True
    status = statuses.get((service.name, backend.name))
    if status is not None and (status.stands_by or not status.present):
        return False
    if status is None:
        return backend.weight > 0 or service.persistence.drain is ClientsOfDrained.KEEP
    return backend.weight > 0 or status.keeps_clients


def client_of(service: VirtualService, address: IPAddress) -> IPNetwork:
    """What persistence tells apart of a client's address; the address where there is none."""
    if service.persistence is None:
        return ip_network(address)
    return ip_network((address, service.persistence.bits(address.version)), strict=False)


def name_client(network: IPNetwork) -> str:
    """``192.0.2.7`` or ``192.0.2.0/24``."""
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address if whole else network)


def plan_client(
    service: VirtualService, held: HeldClient, statuses: Mapping[BackendName, BackendStatus]
) -> PersistentClient:
    """What an entry means for a new flow to a service with the weights that count."""
    backend = next((b for b in service.backends if b.key == held.backend), None)
    if backend is None:
        why = "which is not a backend of it" if held.backend else "which is gone"
        return PersistentClient(held.client, None, held.seconds, False, why)
    kept, why = keeps_clients(service, backend, statuses), ""
    if not kept:
        status = statuses.get((service.name, backend.name))
        state = "draining" if status is None else str(status.state)
        if status is not None and status.stands_by:
            state = "a backup that stands by" if backend.backup else "standing by"
        why = f"which is {state} and takes no clients"
    return PersistentClient(held.client, backend.name, held.seconds, kept, why)


def time_left(seconds: float | None) -> str:
    """``4m10s``, in whole seconds; empty where it is not known."""
    return "" if seconds is None else describe_duration(float(max(1, round(seconds))))
