"""From the document to what this machine must do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tula.model.config import Backend, Config, Forwarding, Scheduler, VirtualService
from tula.model.desired import Choice, DesiredBackend, DesiredService, DesiredState, NextHop
from tula.model.health import BackendName
from tula.model.host import HostView
from tula.model.ids import Ids
from tula.plan.ids import table_content, turns_content, turns_length
from tula.plan.maglev import maglev_table, table_size, turns_table
from tula.plan.reach import Reach
from tula.plan.tunnels import TunnelPlan, has_own_hop, hop_address, plan_tunnels

_CHOICES = {
    Scheduler.RR: Choice.TURNS,
    Scheduler.WRR: Choice.TURNS,
    Scheduler.LEAST_CONNECTIONS: Choice.TURNS,
    Scheduler.RANDOM: Choice.RANDOM,
}


def plan_desired(
    config: Config,
    host: HostView,
    reach: Reach,
    ids: Ids,
    absent: Collection[BackendName] = frozenset(),
) -> DesiredState:
    """The desired state of a document that ``reach`` has all ways for, with these numbers.

    ``absent`` are backends that are not to be sent anything.
    """
    plan = plan_tunnels(config, host, reach.outers, ids)
    services = tuple(
        _plan_service(service, reach, plan, ids, absent) for service in config.services
    )
    hop_links = {hop.interface for hop in reach.hops.values()}
    devices = {name: d.index for name, d in plan.tunnels.devices.items() if d is not None}
    links = {
        name: host.links[name].index
        for name in sorted(hop_links | set(config.interfaces))
        if name in host.links
    }
    return DesiredState(
        interfaces=config.interfaces,
        links=links | devices,
        services=services,
        tables=plan_tables(config, ids),
        turns=_plan_turns(config, ids),
        connections=config.connections,
        seed=config.maglev.seed,
        addresses=tuple(reach.addresses),
        tunnels=plan.tunnels,
        big_above=min((way.device.mtu for way in plan.ways.values() if way.big), default=0),
    )


def slots_of(service: VirtualService, config: Config) -> int:
    """How many slots the service's Maglev table has."""
    return config.maglev.slots or table_size(len(service.backends))


def plan_tables(config: Config, ids: Ids) -> dict[int, tuple[int, ...]]:
    """The backend number of every slot, for every table that ``ids`` names."""
    tables: dict[int, tuple[int, ...]] = {}
    for service in config.services:
        number = ids.tables.get(service.name)
        if number is None or number in tables:
            continue
        content = table_content(service)
        chosen = maglev_table(content, slots_of(service, config))
        numbers = [ids.backends[key] for key, _ in content]
        tables[number] = tuple(map(numbers.__getitem__, chosen))
    return tables


def _plan_turns(config: Config, ids: Ids) -> dict[int, tuple[int, ...]]:
    """The backend number of every turn, for every table of turns that ``ids`` names."""
    tables: dict[int, tuple[int, ...]] = {}
    for service in config.services:
        number = ids.turns.get(service.name)
        if number is not None and number not in tables:
            content = turns_content(service)
            numbers = [ids.backends[key] for key, _ in content]
            chosen = turns_table(content, turns_length(service))
            tables[number] = tuple(numbers[index] for index in chosen)
    return tables


def _hops(
    service: VirtualService, backend: Backend, reach: Reach, plan: TunnelPlan, ids: Ids
) -> Mapping[int, NextHop]:
    if service.forwarding is Forwarding.L2:
        return reach.hops_of(backend, service.versions)
    way = plan.ways.get((service.tunnel, backend.key))
    if way is None:
        return {}
    number = ids.backends[backend.key]
    return {
        version: NextHop(
            hop_address(backend, version, number),
            way.device.name,
            big=way.big.name if way.big and version == 4 else "",
            named=has_own_hop(backend, version),
        )
        for version in service.versions
    }


def _plan_service(
    service: VirtualService,
    reach: Reach,
    plan: TunnelPlan,
    ids: Ids,
    absent: Collection[BackendName],
) -> DesiredService:
    return DesiredService(
        name=service.name,
        number=ids.services[service.name],
        vips=service.vips,
        protocols=service.protocols,
        ports=service.ports,
        by_client=service.by_client,
        table=ids.tables.get(service.name),
        turns=ids.turns.get(service.name),
        choice=_CHOICES.get(service.scheduler, Choice.HASH),
        backends=tuple(
            DesiredBackend(
                name=backend.name,
                key=backend.key,
                number=ids.backends[backend.key],
                weight=backend.weight,
                hops=_hops(service, backend, reach, plan, ids),
                present=(service.name, backend.name) not in absent,
            )
            for backend in service.backends
        ),
        probed=service.probed,
    )
