"""A table of schema 1 is taken over: flows, ids and counts stay, and nothing old is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from support.builders import (
    FakeMachine,
    configs,
    make_backend,
    make_config,
    make_ruleset,
    make_service,
)
from support.schema_1 import as_schema_1, table_of_schema_1
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.recover import counts_by_id, recover_ids, renamed_services
from tula.dataplane.nft.ruleset import Key, Kind, MapName, Ruleset
from tula.dataplane.nft.schema import LEGACY_NAMES, SCHEMA, readable_kind, schema_of
from tula.dataplane.nft.transaction import DeleteMap, FlushMap, in_turn
from tula.kernel.fake_nftables import FakeNftables
from tula.model.config import Config, PortRange, Scheduler, VirtualService
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.model.stats import Count

B = [make_backend(number) for number in range(3)]
IDS = Ids(services={"web": 7, "api": 3}, backends={B[0].key: 12, B[1].key: 5, B[2].key: 9})
"""None that a machine would give that knows nothing."""


def web(name: str = "web") -> VirtualService:
    return make_service(name, ["10.0.0.100", "2001:db8::100"], backends=B, scheduler=Scheduler.WRR)


def api(name: str = "api") -> VirtualService:
    return make_service(name, ["10.0.0.101"], [PortRange(8000, 8010)], backends=B[:2])


CONFIG = make_config(web(), api())


def old_table(config: Config = CONFIG, ids: Ids = IDS) -> Ruleset:
    return table_of_schema_1(make_ruleset(config, ids=ids))


def machine_of_schema_1(directory: Path, table: Ruleset) -> FakeMachine:
    """Its state directory is empty: all that is known is in the table."""
    machine = FakeMachine(directory, CONFIG)
    machine.nftables.meddle(table)
    return machine


def flow_maps(table: Ruleset) -> set[str]:
    """The maps that packets fill and that no flow may lose."""
    parsed = ((name, MapName.parse(name)) for name in table.maps)
    return {name for name, of in parsed if of is not None and of.kind.dynamic and not of.kind.hot}


def test_the_table_is_one_of_schema_1() -> None:
    table = old_table()
    assert schema_of(table.counters) == 1
    assert {name.partition("_")[0] for name in table.maps} == {
        *("slots", "turns", "open", "via4", "via6", "exact4", "exact6", "range4"),
        *("icmpexact4", "icmpexact6", "icmprange4"),
        *("tcp4", "udp4", "closed4", "hottcp4", "hotudp4", "frag4"),
        *("tcp6", "udp6", "closed6", "hottcp6", "hotudp6", "frag6"),
    }


@settings(max_examples=60)
@given(configs(), configs())
def test_any_table_is_taken_over_without_a_flow_lost(before: Config, after: Config) -> None:
    nft = FakeNftables(old_table(before, Ids()))
    old = nft.observe()
    assert old is not None
    want = make_ruleset(after, old, recover_ids(old))
    change = diff_rulesets(old, want, nft.counts())
    touched = {str(step.name) for step in change if isinstance(step, DeleteMap | FlushMap)}
    assert not touched & flow_maps(old) & flow_maps(want)
    first, then = in_turn(change)
    assert not any(isinstance(step, DeleteMap) for step in first)
    nft.run(first)
    # Killed here, the next apply ends what was begun.
    unfinished = nft.observe()
    assert unfinished is not None
    assert schema_of(unfinished.counters) == SCHEMA
    again = make_ruleset(after, unfinished, recover_ids(unfinished))
    assert again == want
    rest = diff_rulesets(unfinished, again, nft.counts())
    assert tuple(step for step in rest if not isinstance(step, FlushMap)) == then
    nft.run(rest)
    assert nft.observe() == want
    assert diff_rulesets(nft.observe(), want) == ()


def test_ids_are_recovered_from_it() -> None:
    found = recover_ids(old_table())
    assert (found.services, found.backends) == (IDS.services, IDS.backends)
    unfinished = Ruleset({**old_table().maps, **make_ruleset(CONFIG, ids=IDS).maps})
    found = recover_ids(unfinished)
    assert (found.services, found.backends) == (IDS.services, IDS.backends)


def test_ids_and_counts_go_on(tmp_path: Path) -> None:
    machine = machine_of_schema_1(tmp_path / "state", old_table())
    counted: dict[Key, Count] = {
        0x7000C: Count(3, 300),
        0x70005: Count(5, 500),
        0x3000C: Count(7, 700),
    }
    machine.nftables.element_counts = {"via4_1024": counted, "via6_1024": {0x7000C: Count(1, 90)}}
    machine.balancer.apply(CONFIG, b"1")
    table, counts = machine.nftables.observe(), machine.nftables.counts()
    assert table is not None
    assert table == make_ruleset(CONFIG, ids=IDS)
    assert {mark: n for mark, n in counts["nexthop4_1024"].items() if n.packets} == counted
    assert counts["nexthop6_1024"][0x7000C] == Count(1, 90)
    assert machine.store.remembered().path["services"] == IDS.services
    assert machine.store.remembered().retired == {}, "nothing has left"
    assert machine.balancer.stats().backends["web", B[0].key] == Count(4, 390)
    assert not machine.balancer.plan(CONFIG, b"1").path


def test_counts_of_what_leaves_with_the_takeover_are_remembered(tmp_path: Path) -> None:
    machine = machine_of_schema_1(tmp_path / "state", old_table())
    machine.nftables.element_counts = {"via4_1024": {0x70009: Count(5, 500)}}
    fewer = make_config(replace(web(), backends=tuple(B[:2])), api())
    machine.balancer.apply(fewer, b"1")
    assert machine.store.remembered().retired["web"] == {B[2].key: Count(5, 500)}


def test_a_takeover_that_was_cut_short_counts_nothing_twice() -> None:
    counts: dict[str, dict[Key, Count]] = {
        "via4_1024": {1: Count(5, 500), 2: Count(1, 100)},
        "nexthop4_1024": {1: Count(7, 700), 2: Count(1, 100)},
        "via6_1024": {1: Count(10, 1000)},
    }
    assert counts_by_id(counts) == {1: Count(17, 1700), 2: Count(1, 100)}


def test_a_service_that_is_renamed_with_the_upgrade_keeps_its_number() -> None:
    table = old_table()
    config = make_config(web("www"), api())
    assert renamed_services(config, recover_ids(table), table) == {"www": "web"}


def test_a_backend_that_was_down_is_still_down(tmp_path: Path) -> None:
    checked = make_config(replace(web(), health=(HealthMonitor(TcpProbe()),)), api())
    table = old_table(checked)
    maps = {
        name: {k: v for k, v in elements.items() if k != 0x70005 or not name.startswith("via")}
        for name, elements in table.maps.items()
    }
    machine = machine_of_schema_1(tmp_path / "state", replace(table, maps=maps))
    # Its number is in the table by its other service alone.
    assert machine.balancer.missing(checked) == {("web", "b1")}


@pytest.mark.parametrize(("old", "kind"), LEGACY_NAMES.items())
def test_old_names_are_read_and_never_written(old: str, kind: Kind) -> None:
    assert as_schema_1(kind) == old
    assert readable_kind(f"{old}_1024") is readable_kind(f"{kind}_1024") is kind
    assert readable_kind(f"{old}_1_1024") is None
    assert MapName.parse(f"{old}_1024") is None


@pytest.mark.parametrize("name", ["mine", "via4x_8", "turns_1_3", "hottcp4_64", "open_1024", "_"])
def test_every_other_name_is_unread(name: str) -> None:
    assert readable_kind(name) is None
