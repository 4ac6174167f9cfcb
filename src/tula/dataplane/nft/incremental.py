"""The ruleset after weights have changed, from the one before.

It equals the ruleset that ``build_ruleset`` gives. What did not change is the same object, so that
it need not be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tula.dataplane.nft.build import NEXTHOP, BuiltRuleset, build_ruleset
from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedService, NumberedState
from tula.dataplane.nft.own_backends import OWN, own_element
from tula.dataplane.nft.ruleset import Chain, Elements, Key, MapName, Ruleset, Value
from tula.dataplane.nft.scheduler_maps import SchedulerMaps
from tula.dataplane.nft.service_chains import ServiceChains


def rebuild_ruleset(before: BuiltRuleset, state: NumberedState) -> BuiltRuleset:
    """The ruleset of a state that differs in tables, weights and presence alone."""
    pairs = [
        (old, new)
        for old, new in zip(before.state.services, state.services, strict=True)
        if old is not new
    ]
    if any((old.table is None) is not (new.table is None) for old, new in pairs):
        # A service without backends gets no ICMP errors: rules of many chains change.
        return build_ruleset(state, before.ruleset.maps)
    scheduler_maps = SchedulerMaps(state)
    maps = dict(before.ruleset.maps)
    _update_scheduler_maps(maps, before, scheduler_maps)
    if not _update_backends(maps, before, pairs):
        return build_ruleset(state, before.ruleset.maps)
    chains = {**before.ruleset.chains, **_changed_chains(before, state, scheduler_maps)}
    ruleset = Ruleset(maps, chains, before.ruleset.counters)
    return BuiltRuleset(
        state,
        ruleset,
        scheduler_maps.slots,
        scheduler_maps.wrr,
        scheduler_maps.shared,
        before.flows,
        before.admission,
    )


def _update_scheduler_maps(
    maps: dict[str, Elements], before: BuiltRuleset, now: SchedulerMaps
) -> None:
    old = SchedulerMaps(before.state)
    had = {name: (table, old.owners[name]) for name, table in old.all()}
    wanted = set()
    for name, table in now.all():
        wanted.add(name)
        known, owner = had.get(name, (None, 0))
        if known is not table or owner != now.owners[name]:
            maps[str(name)] = now.elements(name, table)
    for name in had.keys() - wanted:
        del maps[str(name)]


def _update_backends(
    maps: dict[str, Elements],
    before: BuiltRuleset,
    pairs: Iterable[tuple[NumberedService, NumberedService]],
) -> bool:
    """The backends that accept new flows, and their next hops; False if there is no room."""
    accepting: dict[Key, bool] = {}
    keeping: dict[Key, bool] = {}
    present: dict[int, dict[Key, Value]] = {version: {} for version in before.flows}
    own: dict[int, dict[Key, Value]] = {version: {} for version in before.flows}
    for old, new in pairs:
        for had, backend in zip(old.backends, new.backends, strict=True):
            if had is backend:
                continue
            mark = backend_id(new.number, backend.number)
            accepting[mark] = bool(backend.weight) and backend.present
            if new.persistence is not None:
                keeping[mark] = backend.keeps_clients and backend.present
            for version, found in present.items():
                hop = backend.hops.get(version)
                if hop is not None and new.packed_vips(version):
                    owner = new.name if hop.named else f"{new.name} {backend.key}"
                    found[mark] = (hop.packed, owner) if backend.present else None
                elif backend.own and new.packed_vips(version):
                    own[version][mark] = own_element(new, backend) if backend.present else None
    for flows in before.flows.values():
        if flows.accepting is not None and not _put(
            maps,
            flows.accepting,
            {mark: None for mark, accepts in accepting.items() if accepts},
            accepting,
        ):
            return False
    keeps = next((flows.clients.keeping for flows in before.flows.values() if flows.clients), None)
    if keeps is not None and not _put(
        maps, keeps, {mark: None for mark, keeps_them in keeping.items() if keeps_them}, keeping
    ):
        return False
    names = {parsed.kind: parsed for name in maps if (parsed := MapName.parse(name)) is not None}
    return all(
        _put(
            maps,
            names[kinds[version]],
            {mark: value for mark, value in found.items() if value is not None},
            found,
        )
        for kinds, by_version in ((NEXTHOP, present), (OWN, own))
        for version, found in by_version.items()
        if found
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


def _changed_chains(
    before: BuiltRuleset, state: NumberedState, now: SchedulerMaps
) -> dict[str, Chain]:
    """The chains of services that use another map now, or whose map is shared now or no longer."""
    toggled = set(before.shared) ^ now.shared
    slots = {
        *(number for number, name in now.slots.items() if name in toggled),
        *(number for number, name in now.slots.items() if before.slots.get(number) != name),
    }
    wrr = {
        *(number for number, name in now.wrr.items() if name in toggled),
        *(number for number, name in now.wrr.items() if before.wrr.get(number) != name),
    }
    touched = [
        new
        for old, new in zip(before.state.services, state.services, strict=True)
        if new.table != old.table or new.wrr != old.wrr or new.table in slots or new.wrr in wrr
    ]
    chains: dict[str, Chain] = {}
    for version, flows in before.flows.items():
        made = ServiceChains(
            version, flows, state, now.slots, now.wrr, now.shared, before.admission
        )
        for service in touched:
            if service.packed_vips(version):
                chains |= made.of(service)
    return chains
