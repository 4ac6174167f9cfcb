"""Which backend a flow goes to, and why: the kernel's decision, computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tula.model.client_scopes import HeldClient
from tula.model.config import (
    Backend,
    Config,
    Scheduler,
    VirtualService,
)
from tula.model.config import Protocol as Transport
from tula.model.desired import SlotTable
from tula.model.flow import Flow, FlowEntry
from tula.model.health import BackendName, BackendStatus
from tula.plan.admission import refused
from tula.plan.persistent_clients import (
    PersistentClient,
    client_of,
    name_client,
    plan_client,
    time_left,
)
from tula.plan.slots import SlotTables
from tula.plan.tunnels import outer_address

_TURNS = frozenset({Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.LEAST_CONNECTIONS})


class Choose(Protocol):
    """The data path's choice: the slot that a flow without an entry falls into."""

    def __call__(self, table: SlotTable, flow: Flow, seed: int, *, by_client: bool) -> int: ...


@dataclass(frozen=True, slots=True)
class Trace:
    """The service and backend of a flow, None where nothing serves it, and the reason.

    ``client`` is what persistence holds for the flow's client, None for nothing.
    """

    service: str | None
    backend: str | None
    reason: str
    client: PersistentClient | None = None


def describe_trace(trace: Trace) -> dict[str, Any]:
    """As JSON has it."""
    client = trace.client
    held = None
    if client is not None:
        held = {
            "client": str(client.client),
            "backend": client.backend,
            "seconds": None if client.seconds is None else round(client.seconds, 1),
            "kept": client.kept,
        }
    return {
        "service": trace.service,
        "backend": trace.backend,
        "reason": trace.reason,
        "persistence": held,
    }


def find_service(config: Config, flow: Flow) -> tuple[VirtualService, str] | None:
    """The service that takes the flow, and how its ports matched.

    In the order of the kernel's look-ups: an exact port, a range, any.
    """
    on_vip = [s for s in config.services if flow.vip in s.vips and flow.protocol in s.protocols]
    for service in on_vip:
        for ports in service.ports:
            if flow.port in ports:
                return (
                    service,
                    f"port {flow.port}" if ports.first == ports.last else f"ports {ports}",
                )
    return next(((service, "any port") for service in on_vip if not service.ports), None)


def plan_trace(
    config: Config,
    flow: Flow,
    choose: Choose,
    entry: FlowEntry | None = None,
    *,
    later_fragment: bool = False,
    held: HeldClient | None = None,
    statuses: Mapping[BackendName, BackendStatus] | None = None,
) -> Trace:
    """Follows ``flow`` through the configuration as the rules in the kernel would.

    ``entry`` is what the flow table holds for it; for a ``later_fragment``, what the table of
    fragments holds for its datagram, without which there is nothing to choose by. ``held`` is what
    persistence holds for the client, which ``statuses`` say whether it is kept.
    """
    found = find_service(config, flow)
    remembers = found is not None and found[0].persistence is not None and not later_fragment
    client = plan_client(found[0], held, statuses or {}) if remembers and found and held else None
    trace = _follow(config, flow, choose, entry, client, later_fragment=later_fragment)
    return trace if client is None else replace(trace, client=client)


def _follow(
    config: Config,
    flow: Flow,
    choose: Choose,
    entry: FlowEntry | None,
    client: PersistentClient | None,
    *,
    later_fragment: bool,
) -> Trace:
    target = f"{flow.vip} {flow.protocol} port {flow.port}"
    found = find_service(config, flow)
    if found is None:
        return Trace(None, None, f"no service for {target}: the packet goes on to the host")
    why_not = "" if later_fragment else refused(found[0], flow.client)
    if why_not:
        return Trace(found[0].name, None, f"{found[0].name} takes {found[1]}; {why_not}")
    anew = found[0].per_packet and flow.protocol is Transport.UDP
    if entry is not None and not later_fragment and not anew:
        # The entry counts, not who takes the port: it may have been another service's before.
        owner = next((s for s in config.services if s.name == entry.service), None)
        held = _held(owner, entry) if owner is not None else None
        if owner is not None and held is not None:
            takes = f"takes {found[1]}" if found[0] is owner else f"took port {flow.port}"
            why = f"{owner.name} {takes}; the table of connections holds this flow"
            backend = next(b for b in owner.backends if b.name == held)
            return Trace(owner.name, held, why + _tunnel(owner, backend))
    service, matched = found
    takes = f"{service.name} takes {matched}{_pool(service)}"
    if later_fragment:
        return _later_fragment(config, service, entry)
    takes += _remembered(service, flow, client)
    if client is not None and client.kept:
        backend = next(b for b in service.backends if b.name == client.backend)
        return Trace(service.name, backend.name, takes + _tunnel(service, backend))
    table = SlotTables().maglev(service, config)
    if table is None:
        what = "every backend has weight 0" if service.backends else "it has no backends"
        if service.minimum > 1:
            what = f"no backend serves, or fewer can than the minimum of {service.minimum}"
        return Trace(service.name, None, f"{takes}; {what}: dropped")
    if anew:
        why = f"udp_scheduling: packet: {service.scheduler} chooses for each packet anew"
        return Trace(service.name, None, f"{takes}; {why}")
    slots = len(table.slots)
    by_client = service.by_client or service.persistence is not None
    hashed = client_of(service, flow.client)
    # Persistent clients are hashed as they are told apart.
    chosen = replace(flow, client=hashed.network_address)
    slot = choose(table, chosen, config.maglev.seed, by_client=by_client)
    key = table.content[table.slots[slot]][0]
    backend = next(b for b in service.backends if b.key == key)
    who = name_client(hashed) if by_client else f"{flow.client} port {flow.client_port}"
    if service.scheduler in _TURNS:
        return Trace(service.name, None, f"{takes}; {service.scheduler} gives a new flow its turn")
    how = f"{service.scheduler} hashes {who} to slot {slot} of {slots}"
    return Trace(service.name, backend.name, f"{takes}; {how}{_tunnel(service, backend)}")


def _remembered(service: VirtualService, flow: Flow, client: PersistentClient | None) -> str:
    """What is said of the flow's client, if it is persistent or would be."""
    if service.persistence is None:
        return ""
    who = name_client(client_of(service, flow.client))
    if client is None:
        return f"; no entry for client {who} yet"
    at = client.backend or "an address"
    if not client.kept:
        return f"; persistence has client {who} at {at}, {client.why}"
    left = time_left(client.seconds)
    return f"; persistence holds client {who} at {at}" + (f" for {left} more" if left else "")


def _pool(service: VirtualService) -> str:
    """That its backups serve; by the weights that count."""
    lowest = min((backend.backup for backend in service.backends), default=0)
    levels = {backend.backup for backend in service.backends if backend.weight}
    level = min(levels, default=lowest)
    return f"; its backups serve, level {level}" if level > lowest else ""


def _tunnel(service: VirtualService, backend: Backend) -> str:
    if backend.is_self:
        return "; to the balancer's own stack"
    tunnel = service.tunnel_of(backend)
    if tunnel is None:
        return ""
    return f"; in a tunnel ({tunnel}) to {outer_address(backend)}"


def _later_fragment(config: Config, service: VirtualService, entry: FlowEntry | None) -> Trace:
    """It shows no ports: its datagram's entry alone counts, whichever service made it."""
    if entry is None:
        why = "the datagram's first fragment was not seen lately: the packet goes on to the host"
        return Trace(service.name, None, why)
    owner = next((s for s in config.services if s.name == entry.service), service)
    held = _held(owner, entry)
    if held is None:
        return Trace(owner.name, None, "the backend of the datagram's first fragment is gone")
    return Trace(owner.name, held, "the datagram's first fragment went there")


def _held(service: VirtualService, entry: FlowEntry | None) -> str | None:
    """The backend that an entry names, if the service still has it."""
    if entry is None or entry.service != service.name:
        return None
    return next((b.name for b in service.backends if b.key == entry.backend), None)
