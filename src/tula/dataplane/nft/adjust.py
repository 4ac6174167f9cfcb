"""The ruleset after weights moved: what did not stays the same object, so that it need not be
compared. It equals the ruleset that is shaped anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedService as DesiredService
from tula.dataplane.nft.numbered import NumberedState as DesiredState
from tula.dataplane.nft.ruleset import Chain, Elements, Key, MapName, Ruleset, Value
from tula.dataplane.nft.service_chains import ServiceChains
from tula.dataplane.nft.shape import VIA, Shaped, shape
from tula.dataplane.nft.tables import Tables


def adjust_shape(before: Shaped, state: DesiredState) -> Shaped:
    """The shape of a state in which, but for tables, weights and presence, all is as before."""
    pairs = [
        (old, new)
        for old, new in zip(before.state.services, state.services, strict=True)
        if old is not new
    ]
    if any((old.table is None) is not (new.table is None) for old, new in pairs):
        # One that has nobody to serve is not steered to: rules of many chains change.
        return shape(state, before.ruleset.maps)
    tables = Tables(state)
    maps = dict(before.ruleset.maps)
    _adjust_tables(maps, before, tables)
    if not _adjust_members(maps, before, pairs):
        return shape(state, before.ruleset.maps)
    chains = {**before.ruleset.chains, **_chains(before, state, tables)}
    ruleset = Ruleset(maps, chains, before.ruleset.counters)
    return Shaped(state, ruleset, tables.slots, tables.turns, tables.shared, before.flows)


def _adjust_tables(maps: dict[str, Elements], before: Shaped, tables: Tables) -> None:
    old = Tables(before.state)
    had = {name: (table, old.owners[name]) for name, table in old.all()}
    wanted = set()
    for name, table in tables.all():
        wanted.add(name)
        known, owner = had.get(name, (None, 0))
        if known is not table or owner != tables.owners[name]:
            maps[str(name)] = tables.elements(name, table)
    for name in had.keys() - wanted:
        del maps[str(name)]


def _adjust_members(
    maps: dict[str, Elements],
    before: Shaped,
    pairs: Iterable[tuple[DesiredService, DesiredService]],
) -> bool:
    """The backends that take connections, and those that have any; whether there was room."""
    taking: dict[Key, bool] = {}
    present: dict[int, dict[Key, Value]] = {version: {} for version in before.flows}
    for old, new in pairs:
        for had, backend in zip(old.backends, new.backends, strict=True):
            if had is backend:
                continue
            mark = backend_id(new.number, backend.number)
            taking[mark] = bool(backend.weight) and backend.present
            for version, found in present.items():
                hop = backend.hops.get(version)
                if hop is not None and new.packed_vips(version):
                    owner = new.name if hop.named else f"{new.name} {backend.key}"
                    found[mark] = (hop.packed, owner) if backend.present else None
    for flows in before.flows.values():
        if flows.open is not None and not _put(
            maps, flows.open, {mark: None for mark, open_ in taking.items() if open_}, taking
        ):
            return False
    names = {parsed.kind: parsed for name in maps if (parsed := MapName.parse(name)) is not None}
    return all(
        _put(
            maps,
            names[VIA[version]],
            {mark: value for mark, value in found.items() if value is not None},
            found,
        )
        for version, found in present.items()
    )


def _put(
    maps: dict[str, Elements],
    name: MapName,
    wanted: dict[Key, Value],
    touched: Collection[Key],
) -> bool:
    """Replaces the touched elements by the wanted ones; False if they do not fit."""
    elements = dict(maps[str(name)])
    for key in touched:
        if key not in wanted:
            elements.pop(key, None)
    elements |= wanted
    maps[str(name)] = elements
    return len(elements) <= name.size


def _chains(before: Shaped, state: DesiredState, tables: Tables) -> dict[str, Chain]:
    """The chains of services whose tables are other ones now, or others' too, or no longer."""
    turned = set(before.shared) ^ tables.shared
    named = {
        *(number for number, name in tables.slots.items() if name in turned),
        *(number for number, name in tables.slots.items() if before.slots.get(number) != name),
    }
    named_turns = {
        *(number for number, name in tables.turns.items() if name in turned),
        *(number for number, name in tables.turns.items() if before.turns.get(number) != name),
    }
    touched = [
        new
        for old, new in zip(before.state.services, state.services, strict=True)
        if new.table != old.table
        or new.turns != old.turns
        or new.table in named
        or new.turns in named_turns
    ]
    chains: dict[str, Chain] = {}
    for version, flows in before.flows.items():
        made = ServiceChains(version, flows, state, tables.slots, tables.turns, tables.shared)
        for service in touched:
            if service.packed_vips(version):
                chains |= made.of(service)
    return chains
