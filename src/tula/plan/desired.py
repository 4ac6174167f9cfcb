"""From the configuration to what this machine must do; and on from there when weights move.

When only weights moved, what did not stays the same object: the work is that of the services that
moved, here and in the data path. The result equals that of planning as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tula.model.client_scopes import ClientScope, client_scopes, scope_of
from tula.model.config import Backend, Config, Forwarding, Scheduler, VirtualService
from tula.model.desired import (
    DesiredBackend,
    DesiredService,
    DesiredState,
    DesiredTunnel,
    NewFlows,
    NextHop,
)
from tula.model.health import BackendName, BackendStatus
from tula.model.host import HostView
from tula.plan.backend_status import (
    Shares,
    absent_backends,
    effective_config,
    effective_service,
    moved_services,
    moved_shares,
    without_route,
)
from tula.plan.bgp import with_bgp
from tula.plan.forwarders import forwarder_macs
from tula.plan.high_availability import plan_announcing, plan_sharing
from tula.plan.persistent_clients import keeps_clients
from tula.plan.routes import Routes
from tula.plan.slots import SlotTables

_NEW_FLOWS = {
    Scheduler.RR: NewFlows.ROUND_ROBIN,
    Scheduler.WRR: NewFlows.ROUND_ROBIN,
    Scheduler.LEAST_CONNECTIONS: NewFlows.ROUND_ROBIN,
    Scheduler.RANDOM: NewFlows.RANDOM,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan, with what the next one can take from it.

    ``config`` has the configuration's own weights, ``effective`` those that count.
    """

    config: Config
    statuses: Mapping[BackendName, BackendStatus]
    shares: Shares
    unreachable: Collection[BackendName]
    """what no route leads to, whatever the statuses say"""
    effective: Config
    state: DesiredState
    tables: SlotTables


def plan_desired(
    config: Config,
    host: HostView,
    routes: Routes,
    statuses: Mapping[BackendName, BackendStatus],
    shares: Shares,
    unreachable: Collection[BackendName] = frozenset(),
) -> Plan:
    """The plan of a configuration for which ``reach`` has all routes but to ``unreachable``."""
    statuses = without_route(statuses, unreachable)
    effective = effective_config(config, statuses, shares)
    absent, tables = absent_backends(statuses), SlotTables()
    scopes = client_scopes(config.services)
    state = DesiredState(
        interfaces=config.interfaces,
        links=host.links,
        services=tuple(
            _plan_service(
                service, effective, routes, tables, absent, statuses, scope_of(scopes, service.name)
            )
            for service in effective.services
        ),
        connections=config.connections,
        seed=config.maglev.seed,
        marks=config.marks,
        tunnels=config.tunnels,
        vips=tuple(routes.vips),
        shared_with=plan_sharing(config, host),
        counts_often=any(s.scheduler is Scheduler.LEAST_CONNECTIONS for s in config.services),
        announcing=with_bgp(plan_announcing(config, host), config, host),
        forwarders=forwarder_macs(config, host),
    )
    return Plan(config, statuses, shares, unreachable, effective, state, tables)


def adjust_plan(
    before: Plan, statuses: Mapping[BackendName, BackendStatus], shares: Shares
) -> Plan:
    """The plan for other statuses of the same configuration, on the same machine."""
    statuses = without_route(statuses, before.unreachable)
    names = moved_services(before.statuses, statuses)
    names |= moved_shares(before.shares, shares)
    if not names:
        return replace(before, statuses=statuses, shares=shares)
    moved: dict[str, VirtualService] = {}
    effective_services = []
    for listed, old in zip(before.config.services, before.effective.services, strict=True):
        service = old
        if listed.name in names:
            service = effective_service(listed, statuses, shares)
            service = moved[listed.name] = old if service == old else service
        effective_services.append(service)
    effective = replace(before.effective, services=tuple(effective_services))
    tables = before.tables
    services = tuple(
        _adjust_service(old, service, effective, tables, statuses) if old.name in moved else old
        for old, service in zip(before.state.services, effective.services, strict=True)
    )
    return replace(
        before,
        statuses=statuses,
        shares=shares,
        effective=effective,
        state=replace(before.state, services=services),
        tables=tables.pruned(services),
    )


def _plan_service(
    service: VirtualService,
    config: Config,
    routes: Routes,
    tables: SlotTables,
    absent: Collection[BackendName],
    statuses: Mapping[BackendName, BackendStatus],
    scope: ClientScope | None,
) -> DesiredService:
    return DesiredService(
        name=service.name,
        vips=service.vips,
        protocols=service.protocols,
        ports=service.ports,
        by_client=service.by_client,
        new_flows=_NEW_FLOWS.get(service.scheduler, NewFlows.HASH),
        maglev=tables.maglev(service, config),
        order=tables.order(service),
        backends=tuple(
            DesiredBackend(
                name=backend.name,
                key=backend.key,
                addresses=backend.addresses,
                weight=backend.weight,
                next_hops=_next_hops(service, backend, routes),
                tunnel=_tunnel(service, backend, routes),
                present=(service.name, backend.name) not in absent,
                keeps_clients=keeps_clients(service, backend, statuses),
                own=routes.serves_here(backend),
            )
            for backend in service.backends
        ),
        versions=service.versions,
        probed=service.probed,
        persistence=scope,
        per_packet=service.per_packet,
        admission=service.admission,
    )


def _next_hops(service: VirtualService, backend: Backend, routes: Routes) -> Mapping[int, NextHop]:
    if service.forwarding_of(backend) is Forwarding.L3:
        return {}
    return routes.hops_of(backend, service.versions)


def _tunnel(service: VirtualService, backend: Backend, routes: Routes) -> DesiredTunnel | None:
    tunnel, endpoints = service.tunnel_of(backend), routes.endpoints_of(backend)
    return DesiredTunnel(tunnel, endpoints) if tunnel is not None and endpoints else None


def _adjust_service(
    old: DesiredService,
    service: VirtualService,
    config: Config,
    tables: SlotTables,
    statuses: Mapping[BackendName, BackendStatus],
) -> DesiredService:
    backends = []
    for had, backend in zip(old.backends, service.backends, strict=True):
        status = statuses.get((service.name, backend.name))
        present = status is None or status.present
        new = replace(
            had,
            weight=backend.weight,
            present=present,
            keeps_clients=keeps_clients(service, backend, statuses),
        )
        backends.append(had if new == had else new)
    return replace(
        old,
        backends=tuple(backends),
        maglev=tables.maglev(service, config),
        order=tables.order(service),
    )
