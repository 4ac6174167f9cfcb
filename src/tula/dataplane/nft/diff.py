"""From what the table holds to what it must hold, in one transaction.

nftables makes a transaction visible to packets at once (nf_tables_api.c, the generation
cursor), so the order below only has to satisfy references: a thing stands before what names
it, and goes after. Removals of maps, and what depends on them, are last: ``in_turn`` parts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tula.dataplane.nft.ruleset import Chain, Elements, Key, MapName, Ruleset
from tula.dataplane.nft.schema import readable_kind
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteTable,
    FlushChain,
    FlushMap,
    Step,
    Transaction,
)
from tula.model.stats import Count

Counts = Mapping[str, Mapping[Key, Count]]
"""The counts of elements, by the map's name."""

_NONE: Ruleset = Ruleset()


def diff_rulesets(
    have: Ruleset | None, want: Ruleset | None, counts: Counts | None = None
) -> Transaction:
    """The steps that turn ``have`` into ``want``; None stands for a table that is not there.

    ``counts`` are what the elements of ``have`` counted: an element that is replaced, or that
    moves to a larger map, goes on from there. Empty when there is nothing to do.
    """
    if want is None:
        return (DeleteTable(),) if have is not None else ()
    old = have if have is not None else _NONE
    steps: list[Step] = [] if have is not None else [AddTable()]
    steps += [AddCounter(name) for name in sorted(want.counters - old.counters)]
    # A base chain that sits on another device goes first: its name is needed again.
    moved = {
        name
        for name, chain in want.chains.items()
        if name in old.chains and old.chains[name].device != chain.device
    }
    for name in sorted(moved):
        steps += [FlushChain(name), DeleteChain(name)]
    steps += [
        AddChain(name, chain.device)
        for name, chain in want.chains.items()
        if name not in old.chains or name in moved
    ]
    added_maps = [name for name in want.maps if name not in old.maps]
    steps += [AddMap(_parsed(name)) for name in added_maps]
    # Rules before elements: for every chain that names a map the kernel walks all of the map's
    # elements (nf_tables_bind_set), which for 5,000 services took seconds.
    steps += _diff_rules(old.chains, want.chains, moved)
    for name, elements in want.maps.items():
        if old.maps.get(name) is elements:
            continue
        carried = _carried(_parsed(name), counts or {})
        steps += _diff_elements(_parsed(name), old.maps.get(name, {}), elements, carried)
    gone_chains = [name for name in old.chains if name not in want.chains]
    if _dispatched(old, want) - _dispatched(want, old):
        # A hot flow is not dispatched: one to a port that no service has any more would go on.
        hot = (_parsed(name) for name in want.maps if name in old.maps)
        steps += [FlushMap(name) for name in hot if name.kind.hot]
    # First all rules, then the chains: a rule of one may name another.
    steps += [FlushChain(name) for name in gone_chains if old.chains[name].rules]
    gone_maps = [name for name in old.maps if name not in want.maps]
    # Verdict maps name chains, so maps go before chains.
    steps += [DeleteMap(name) for name in gone_maps]
    steps += [DeleteChain(name) for name in gone_chains]
    steps += [DeleteCounter(name) for name in sorted(old.counters - want.counters)]
    return tuple(steps)


def _dispatched(ruleset: Ruleset, other: Ruleset) -> set[Key]:
    """The VIPs, protocols and ports that lead to some service, by maps that may differ."""
    return {
        key
        for name, elements in ruleset.maps.items()
        if other.maps.get(name) is not elements
        and (kind := readable_kind(name)) is not None
        and kind.dispatches
        for key in elements
    }


def _parsed(name: str) -> MapName:
    parsed = MapName.parse(name)
    if parsed is None:
        raise ValueError(f"{name!r} is no name of a map of Tula's")
    return parsed


def _carried(name: MapName, counts: Counts) -> dict[Key, Count]:
    """The counts of all maps of the same kind: this one, and the one that it replaces."""
    carried: dict[Key, Count] = {}
    if name.kind.counts:
        for other, values in counts.items():
            if readable_kind(other) is name.kind:
                carried.update(values)
    return carried


def _diff_elements(
    name: MapName, have: Elements, want: Elements, carried: Mapping[Key, Count]
) -> list[Step]:
    if have == want:
        return []
    # Delete before add: the map may be full, and an element's value is changed by replacing it.
    deleted = tuple(key for key, value in have.items() if key not in want or want[key] != value)
    added = {key: value for key, value in want.items() if key not in have or have[key] != value}
    steps: list[Step] = []
    if deleted:
        steps.append(DeleteElements(name, deleted))
    if added:
        counts = {key: carried[key] for key in added if key in carried}
        steps.append(AddElements(name, added, counts))
    return steps


def _diff_rules(
    have: Mapping[str, Chain], want: Mapping[str, Chain], moved: set[str]
) -> list[Step]:
    steps: list[Step] = []
    for name, chain in want.items():
        if have.get(name) is chain:
            continue
        old = have[name].rules if name in have and name not in moved else ()
        if old == chain.rules:
            continue
        if old:
            steps.append(FlushChain(name))
        if chain.rules:
            steps.append(AddRules(name, chain.rules))
    return steps
