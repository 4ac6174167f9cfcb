"""From one desired state to the next when only weights moved: what did not stays the same object.

The result equals that of planning anew; the work is that of the services that moved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tula.model.config import Config, VirtualService
from tula.model.desired import DesiredService, DesiredState
from tula.model.health import BackendName, Standing
from tula.model.ids import Ids
from tula.plan.desired import slots_of
from tula.plan.ids import (
    replan_tables,
    table_content,
    takes_turns,
    turns_content,
    turns_group,
    turns_length,
)
from tula.plan.maglev import Content, maglev_table, turns_table
from tula.plan.standing import (
    Shares,
    away_standings,
    effective_service,
    moved_services,
    moved_shares,
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, with what the next one can take from it.

    ``config`` has the document's own weights, ``effective`` those that count; ``contents`` are of
    the tables of each service, by its name: Maglev's, and that of turns.
    """

    config: Config
    standings: Mapping[BackendName, Standing]
    shares: Shares
    absent: Collection[BackendName]
    """what no way leads to, whatever the standings say"""
    effective: Config
    ids: Ids
    state: DesiredState
    contents: Mapping[str, tuple[Content, Content]]
    groups: Mapping[str, tuple[Content, Content]]
    """as ``replan_tables`` takes them"""


def keep_plan(
    config: Config,
    standings: Mapping[BackendName, Standing],
    shares: Shares,
    absent: Collection[BackendName],
    effective: Config,
    ids: Ids,
    state: DesiredState,
) -> Planned:
    """A plan that was made as a whole, with ``away_standings``."""
    contents = {service.name: _contents(service) for service in effective.services}
    groups = {service.name: _groups(service) for service in effective.services}
    return Planned(config, standings, shares, absent, effective, ids, state, contents, groups)


def adjust_plan(
    before: Planned, standings: Mapping[BackendName, Standing], shares: Shares
) -> Planned:
    """The plan for other standings of the same document, on the same machine."""
    standings = away_standings(standings, before.absent)
    names = moved_services(before.standings, standings)
    names |= moved_shares(before.shares, shares)
    if not names:
        return replace(before, standings=standings, shares=shares)
    moved: dict[str, VirtualService] = {}
    services = []
    for listed, old in zip(before.config.services, before.effective.services, strict=True):
        service = old
        if listed.name in names:
            service = effective_service(listed, standings, shares)
            service = moved[listed.name] = old if service == old else service
        services.append(service)
    effective = replace(before.effective, services=tuple(services))
    contents = {**before.contents, **{name: _contents(s) for name, s in moved.items()}}
    groups = {**before.groups, **{name: _groups(s) for name, s in moved.items()}}
    ids = replan_tables(before.ids, groups)
    tables, turns = _tables(before, effective, contents, ids)
    state = replace(
        before.state,
        services=tuple(
            _adjust_service(old, service, ids, standings)
            if old.name in moved
            else _renumber(old, ids)
            for old, service in zip(before.state.services, effective.services, strict=True)
        ),
        tables=tables,
        turns=turns,
    )
    return replace(
        before,
        standings=standings,
        shares=shares,
        effective=effective,
        ids=ids,
        state=state,
        contents=contents,
        groups=groups,
    )


def _contents(service: VirtualService) -> tuple[Content, Content]:
    return table_content(service), turns_content(service) if takes_turns(service) else ()


def _groups(service: VirtualService) -> tuple[Content, Content]:
    return table_content(service), turns_group(service) if takes_turns(service) else ()


def _tables(
    before: Planned,
    effective: Config,
    contents: Mapping[str, tuple[Content, Content]],
    ids: Ids,
) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
    """All tables, those of equal content from before."""
    had = _first_contents(before.ids.tables, before.contents, 0)
    had_turns = _first_contents(before.ids.turns, before.contents, 1)
    tables: dict[int, tuple[int, ...]] = {}
    turns: dict[int, tuple[int, ...]] = {}
    for service in effective.services:
        content, by_turn = contents[service.name]
        number, turn = ids.tables.get(service.name), ids.turns.get(service.name)
        if number is not None and number not in tables:
            if had.get(number) == content:
                tables[number] = before.state.tables[number]
            else:
                slots = maglev_table(content, slots_of(service, effective))
                numbers = [ids.backends[key] for key, _ in content]
                tables[number] = tuple(map(numbers.__getitem__, slots))
        if turn is not None and turn not in turns:
            if had_turns.get(turn) == by_turn:
                turns[turn] = before.state.turns[turn]
            else:
                numbers = [ids.backends[key] for key, _ in by_turn]
                chosen = turns_table(by_turn, turns_length(service))
                turns[turn] = tuple(numbers[index] for index in chosen)
    return tables, turns


def _first_contents(
    numbers: Mapping[str, int], contents: Mapping[str, tuple[Content, Content]], which: int
) -> dict[int, Content]:
    found: dict[int, Content] = {}
    for name, number in numbers.items():
        if number not in found:
            found[number] = contents[name][which]
    return found


def _renumber(old: DesiredService, ids: Ids) -> DesiredService:
    table, turns = ids.tables.get(old.name), ids.turns.get(old.name)
    if table == old.table and turns == old.turns:
        return old
    return replace(old, table=table, turns=turns)


def _adjust_service(
    old: DesiredService,
    service: VirtualService,
    ids: Ids,
    standings: Mapping[BackendName, Standing],
) -> DesiredService:
    backends = []
    for had, backend in zip(old.backends, service.backends, strict=True):
        standing = standings.get((service.name, backend.name))
        present = standing is None or standing.present
        same = had.weight == backend.weight and had.present == present
        backends.append(had if same else replace(had, weight=backend.weight, present=present))
    return _renumber(replace(old, backends=tuple(backends)), ids)
