"""From what the table holds to what it must hold, in one transaction.

nftables makes a transaction visible to packets at once (nf_tables_api.c, the generation
cursor), so the order below only has to satisfy references: a thing stands before what names
it, and goes after. Removals of maps, and what depends on them, are last: ``in_turn`` parts them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tula.dataplane.nft.client_admission import refusal_rules, refuses_more
from tula.dataplane.nft.ruleset import PER_PACKET, Chain, Elements, Key, MapName, Ruleset
from tula.dataplane.nft.schema import readable_kind
from tula.dataplane.nft.shared_flows import admission_rules
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    Admit,
    AdmitNobody,
    AnswerNobody,
    AnswerRefused,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteObject,
    DeleteTable,
    FlushChain,
    FlushMap,
    Step,
    Transaction,
    WakeTable,
)
from tula.model.desired import SharedWith
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
    # A base chain of another device or hook goes first: its name is needed again.
    moved = {
        name
        for name, chain in want.chains.items()
        if name in old.chains and _place(old.chains[name]) != _place(chain)
    }
    # So do foreign maps when a name of theirs is needed, or when one may lead to such a chain.
    first = old.foreign.maps if moved else old.foreign.maps & want.maps.keys()
    unreadable = [_parsed(name) for name in want.maps if name in old.foreign.elements]
    emptied: set[str] = set()
    if moved or first:
        emptied = _chains_to_empty(old.chains, want.chains, moved, first)
        steps += [FlushChain(name) for name in old.chains if name in emptied]
    steps += [DeleteMap(name) for name in sorted(first)]
    steps += [FlushMap(name) for name in unreadable]
    held = {**old.maps, **{str(name): {} for name in unreadable}}
    if moved:
        held |= _without_chains(held, moved, steps)
    steps += [DeleteChain(name) for name in sorted(moved)]
    steps += [
        AddChain(name, chain.device)
        for name, chain in want.chains.items()
        if name not in old.chains or name in moved
    ]
    steps += [AddMap(_parsed(name)) for name in want.maps if name not in old.maps]
    # Rules before elements: for every chain that names a map the kernel walks all of the map's
    # elements (nf_tables_bind_set), which for 5,000 services took seconds.
    steps += _diff_rules(old.chains, want.chains, emptied | moved)
    for name, elements in want.maps.items():
        if held.get(name) is elements:
            continue
        carried = _carried(_parsed(name), counts or {})
        steps += _diff_elements(_parsed(name), held.get(name, {}), elements, carried)
    gone_chains = [name for name in old.chains if name not in want.chains]
    astray = any(name.kind.dispatches for name in unreadable)
    gone_dispatch = _dispatched(old, want) - _dispatched(want, old)
    if astray or gone_dispatch or _unlearned(old, want) or refuses_more(old, want):
        # A hot flow is not dispatched: one to a port that no service has now would go on, and so
        # would one whose packets are scheduled each by itself from now on, and that of a client
        # which may not connect any more.
        hot = (_parsed(name) for name in want.maps if name in old.maps)
        steps += [FlushMap(name) for name in hot if name.kind.hot]
    if old.foreign.dormant:
        # Behind new base chains, which the kernel refuses after it (nf_tables_addchain).
        steps.append(WakeTable())
    # First all rules, then the chains: a rule of one may name another.
    steps += [
        FlushChain(name) for name in gone_chains if old.chains[name].rules and name not in emptied
    ]
    # Verdict maps name chains, so maps go before chains; maps name objects as well.
    steps += [DeleteMap(name) for name in old.maps if name not in want.maps]
    steps += [DeleteMap(name) for name in sorted(old.foreign.maps - first)]
    steps += [DeleteChain(name) for name in gone_chains]
    steps += [DeleteCounter(name) for name in sorted(old.counters - want.counters)]
    steps += [DeleteObject(*each) for each in sorted(old.foreign.objects)]
    return tuple(steps)


def diff_admission(have: tuple[str, ...] | None, shared: SharedWith | None) -> Transaction:
    """The same for the table ADMISSION; ``have`` are the digests of its rules."""
    if shared is None:
        return () if have is None else (AdmitNobody(),)
    rules = admission_rules(shared)
    return () if have == tuple(rule.digest for rule in rules) else (Admit(rules),)


def diff_refusals(have: tuple[str, ...] | None, *, answered: bool) -> Transaction:
    """The same for the table REFUSALS; ``answered``: some service has its refused told so."""
    if not answered:
        return () if have is None else (AnswerNobody(),)
    rules = refusal_rules()
    return () if have == tuple(rule.digest for rule in rules) else (AnswerRefused(rules),)


def _place(chain: Chain) -> tuple[str, str]:
    return chain.device, chain.foreign


def _chains_to_empty(
    have: Mapping[str, Chain],
    want: Mapping[str, Chain],
    moved: set[str],
    first: frozenset[str],
) -> set[str]:
    """The chains whose rules go before anything else does: those that may name what goes.

    What a rule names is only known of those that stay as they are.
    """
    named = tuple(f"@{name} " for name in first)
    return {
        name
        for name, chain in have.items()
        if chain.rules
        and (
            name in moved
            or name not in want
            or want[name].rules != chain.rules
            or any(each in f"{rule.text} " for rule in want[name].rules for each in named)
        )
    }


def _without_chains(
    maps: Mapping[str, Elements], chains: set[str], steps: list[Step]
) -> dict[str, Elements]:
    """The maps with elements that lead to these chains, without them; adds the steps for it."""
    found: dict[str, Elements] = {}
    for name, elements in maps.items():
        keys = tuple(key for key, value in elements.items() if value in chains)
        if keys:
            steps.append(DeleteElements(_parsed(name), keys))
            found[name] = {k: value for k, value in elements.items() if value not in chains}
    return found


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


def _unlearned(have: Ruleset, want: Ruleset) -> set[str]:
    """The chains that schedule each packet by itself from now on."""
    return {name for name in want.chains.keys() - have.chains.keys() if name.startswith(PER_PACKET)}


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
    have: Mapping[str, Chain], want: Mapping[str, Chain], emptied: set[str]
) -> list[Step]:
    steps: list[Step] = []
    for name, chain in want.items():
        if have.get(name) is chain and name not in emptied:
            continue
        old = have[name].rules if name in have and name not in emptied else ()
        if old == chain.rules:
            continue
        if old:
            steps.append(FlushChain(name))
        if chain.rules:
            steps.append(AddRules(name, chain.rules))
    return steps
