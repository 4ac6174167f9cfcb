"""Which backend a flow goes to, and why: the kernel's decision, computed."""

from __future__ import annotations

from dataclasses import dataclass

from tula.model.config import Config, IPAddress, Protocol, VirtualService
from tula.plan.desired import slots_of
from tula.plan.ids import table_content
from tula.plan.lookup3 import slot_of
from tula.plan.maglev import maglev_table


@dataclass(frozen=True, slots=True)
class Flow:
    """One client's packets to one VIP and port."""

    client: IPAddress
    client_port: int
    vip: IPAddress
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Trace:
    """The service and backend of a flow, None where nothing serves it, and the reason."""

    service: str | None
    backend: str | None
    reason: str


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


def plan_trace(config: Config, flow: Flow) -> Trace:
    """Follows ``flow`` through the document as the rules in the kernel would."""
    target = f"{flow.vip} {flow.protocol} port {flow.port}"
    found = find_service(config, flow)
    if found is None:
        return Trace(None, None, f"no service for {target}: the packet goes on to the host")
    service, matched = found
    content = table_content(service)
    slots = slots_of(service, config)
    table = maglev_table(content, slots)
    if not table:
        what = "every backend has weight 0" if service.backends else "it has no backends"
        return Trace(service.name, None, f"{service.name} takes {matched}; {what}: dropped")
    port = None if service.by_client else flow.client_port
    slot = slot_of(flow.client, port, config.maglev.seed, slots)
    key = content[table[slot]][0]
    backend = next(b for b in service.backends if b.key == key)
    who = str(flow.client) if port is None else f"{flow.client} port {port}"
    how = f"{service.scheduler} hashes {who} to slot {slot} of {slots}"
    return Trace(service.name, backend.name, f"{service.name} takes {matched}; {how}")
