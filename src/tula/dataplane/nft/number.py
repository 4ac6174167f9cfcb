"""From the desired state to the same in numbers and devices, as a whole or where it moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.numbered import (
    NumberedBackend,
    NumberedHop,
    NumberedService,
    NumberedState,
    NumberedTable,
)
from tula.dataplane.nft.tunnel_plan import TunnelPlan, has_own_hop, hop_address, plan_tunnels
from tula.dataplane.nft.virtual_mac import virtual_macs
from tula.model.desired import DesiredBackend, DesiredService, DesiredState, SlotTable

_Tables = Mapping[int, NumberedTable]
_NO_HOPS: Mapping[int, NumberedHop] = {}


def number_state(state: DesiredState, ids: Ids) -> NumberedState:
    """The desired state with these numbers, and the devices that it needs."""
    plan = plan_tunnels(state, ids)
    hops = _Hops(plan, ids)
    services = tuple(
        _service(
            service,
            ids,
            tuple(
                NumberedBackend(
                    name=backend.name,
                    key=backend.key,
                    number=ids.backends[backend.key],
                    weight=backend.weight,
                    hops=hops.of(service, backend),
                    present=backend.present,
                    keeps_clients=backend.keeps_clients,
                    own=backend.own,
                )
                for backend in service.backends
            ),
        )
        for service in state.services
    )
    used = {
        hop.interface
        for service in services
        for backend in service.backends
        for hop in backend.hops.values()
    }
    links = {
        name: state.links[name].index
        for name in sorted(used | set(state.interfaces))
        if name in state.links
    }
    devices = {name: d.index for name, d in plan.tunnels.devices.items() if d is not None}
    return NumberedState(
        interfaces=state.interfaces,
        links=links | devices,
        services=services,
        tables=_tables(((ids.tables, s, s.maglev) for s in state.services), ids, {}),
        wrr=_tables(((ids.wrr, s, s.order) for s in state.services), ids, {}),
        connections=state.connections,
        seed=state.seed,
        tunnels=plan.tunnels,
        big_above=plan.big_above,
        virtual_macs=virtual_macs(state),
        headerless=frozenset(
            name
            for name in state.interfaces
            if name in state.links and not state.links[name].ethernet
        ),
        shared_with=state.shared_with,
        forwarders=state.forwarders,
        counts_often=state.counts_often,
    )


def only_weights_moved(old: DesiredState, new: DesiredState) -> bool:
    """Whether ``renumber_state`` fits: all but tables, weights and presence is the same object."""
    return (
        old.interfaces is new.interfaces
        and old.links is new.links
        and old.connections is new.connections
        and old.tunnels is new.tunnels
        and old.seed == new.seed
        and old.marks is new.marks
        and old.shared_with == new.shared_with
        and old.counts_often == new.counts_often
        and old.announcing == new.announcing
        and old.forwarders == new.forwarders
        and len(old.services) == len(new.services)
        and all(
            had is service or _same_but_weights(had, service)
            for had, service in zip(old.services, new.services, strict=True)
        )
    )


def _same_but_weights(had: DesiredService, service: DesiredService) -> bool:
    return (
        had.name == service.name
        and had.vips is service.vips
        and had.ports is service.ports
        and had.protocols is service.protocols
        and had.new_flows is service.new_flows
        and had.by_client is service.by_client
        and had.persistence == service.persistence
        and had.per_packet is service.per_packet
        and had.admission == service.admission
        and len(had.backends) == len(service.backends)
        and all(
            old is new or (old.addresses is new.addresses and old.next_hops is new.next_hops)
            for old, new in zip(had.backends, service.backends, strict=True)
        )
    )


def renumber_state(
    before: NumberedState, old: DesiredState, new: DesiredState, ids: Ids
) -> NumberedState:
    """``before``, which was made of ``old``, for ``new``: services that did not move stay."""
    services = tuple(
        _renumber(numbered, ids) if had is service else _adjust(numbered, service, ids)
        for numbered, had, service in zip(before.services, old.services, new.services, strict=True)
    )
    return replace(
        before,
        services=services,
        tables=_tables(((ids.tables, s, s.maglev) for s in new.services), ids, before.tables),
        wrr=_tables(((ids.wrr, s, s.order) for s in new.services), ids, before.wrr),
    )


def _adjust(numbered: NumberedService, service: DesiredService, ids: Ids) -> NumberedService:
    backends = tuple(
        had
        if (had.weight, had.present, had.keeps_clients)
        == (backend.weight, backend.present, backend.keeps_clients)
        else replace(
            had,
            weight=backend.weight,
            present=backend.present,
            keeps_clients=backend.keeps_clients,
        )
        for had, backend in zip(numbered.backends, service.backends, strict=True)
    )
    return _renumber(replace(numbered, backends=backends), ids)


def _renumber(numbered: NumberedService, ids: Ids) -> NumberedService:
    table, wrr = ids.tables.get(numbered.name), ids.wrr.get(numbered.name)
    if table == numbered.table and wrr == numbered.wrr:
        return numbered
    return replace(numbered, table=table, wrr=wrr)


def _service(
    service: DesiredService, ids: Ids, backends: tuple[NumberedBackend, ...]
) -> NumberedService:
    return NumberedService(
        name=service.name,
        number=ids.services[service.name],
        vips=service.vips,
        protocols=service.protocols,
        ports=service.ports,
        by_client=service.by_client,
        table=ids.tables.get(service.name),
        wrr=ids.wrr.get(service.name),
        choice=service.new_flows,
        backends=backends,
        probed=service.probed,
        persistence=service.persistence,
        per_packet=service.per_packet,
        admission=service.admission,
    )


def _tables(
    uses: Iterable[tuple[Mapping[str, int], DesiredService, SlotTable | None]],
    ids: Ids,
    before: _Tables,
) -> dict[int, NumberedTable]:
    """Every table once, by its number; one of ``before`` where it is the same."""
    found: dict[int, NumberedTable] = {}
    for numbers, service, table in uses:
        if table is None:
            continue
        number = numbers[service.name]
        if number not in found:
            had = before.get(number)
            if had is None or had.table is not table:
                had = NumberedTable(table, tuple(ids.backends[key] for key, _ in table.content))
            found[number] = had
    return found


class _Hops:
    """Next hops, made once for all services that list a backend."""

    def __init__(self, plan: TunnelPlan, ids: Ids) -> None:
        self._plan = plan
        self._ids = ids
        self._made: dict[int, tuple[object, Mapping[int, NumberedHop]]] = {}

    def of(self, service: DesiredService, backend: DesiredBackend) -> Mapping[int, NumberedHop]:
        if backend.tunnel is not None:
            return self._through_tunnel(service, backend)
        # By identity: services with equal backends share the mapping (``Routes.hops_of``), which
        # is held here so that its id is nobody else's.
        known = self._made.get(id(backend.next_hops))
        if known is None:
            hops = {v: NumberedHop(h.address, h.interface) for v, h in backend.next_hops.items()}
            known = self._made[id(backend.next_hops)] = (backend.next_hops, hops)
        return known[1]

    def _through_tunnel(
        self, service: DesiredService, backend: DesiredBackend
    ) -> Mapping[int, NumberedHop]:
        assert backend.tunnel is not None
        made = self._plan.devices.get((backend.tunnel.kind, backend.key))
        if made is None:
            return _NO_HOPS
        number = self._ids.backends[backend.key]
        return {
            version: NumberedHop(
                hop_address(backend, version, number),
                made.device.name,
                big=made.big.name if made.big and version == 4 else "",
                named=has_own_hop(backend, version),
            )
            for version in service.versions
        }
