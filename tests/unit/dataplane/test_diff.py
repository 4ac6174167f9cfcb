"""The difference closes the gap, from anywhere to anywhere, and does no more than that."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from support.builders import (
    configs,
    make_backend,
    make_config,
    make_ruleset,
    make_service,
    number_config,
)
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.recover import counts_by_id, recover_ids
from tula.dataplane.nft.ruleset import Chain, MapName, Rule, Ruleset
from tula.dataplane.nft.transaction import (
    AddChain,
    AddElements,
    AddMap,
    AddRules,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    FlushChain,
    Transaction,
    in_turn,
    render_transaction,
)
from tula.kernel.fake_nftables import FakeNftables
from tula.model.config import Config
from tula.model.stats import Count

B = [make_backend(number) for number in range(8)]


def web(*backends: object) -> Config:
    return make_config(make_service(backends=backends))  # type: ignore[arg-type]


def kernel() -> FakeNftables:
    return FakeNftables()


def bring(nft: FakeNftables, config: Config) -> Transaction:
    """One apply, on the fake kernel."""
    have = nft.observe()
    want = make_ruleset(config, have, recover_ids(have))
    transaction = diff_rulesets(have, want, nft.counts())
    changed, gone = in_turn(transaction)
    nft.run(changed)
    if have is not None and gone:
        there = nft.observe()
        assert there is not None
        for step in gone:
            if isinstance(step, DeleteMap):
                assert there.maps[step.name] == have.maps[step.name], "packets may be on their way"
        assert there.chains.keys() >= want.chains.keys()
        assert all(there.chains[name] == chain for name, chain in want.chains.items())
    nft.run(gone)
    assert nft.observe() == want
    return transaction


@settings(max_examples=60)
@given(configs(), configs())
def test_from_any_document_to_any_other_and_back(first: Config, second: Config) -> None:
    nft = kernel()
    bring(nft, first)
    bring(nft, second)
    bring(nft, first)
    assert bring(nft, first) == ()


@settings(max_examples=30)
@given(configs())
def test_everything_goes(config: Config) -> None:
    nft = kernel()
    bring(nft, config)
    nft.run(diff_rulesets(nft.observe(), None))
    assert nft.observe() is None
    assert diff_rulesets(None, None) == ()


def test_rules_stand_still_when_only_backends_change() -> None:
    nft = kernel()
    bring(nft, web(*B[:2]))
    for backends in (B[:4], B[1:4], [replace(B[1], weight=7), B[2]], B[5:8]):
        steps = bring(nft, web(*backends))
        assert {type(step) for step in steps} <= {AddElements, DeleteElements}


def test_a_backend_that_leaves_changes_few_slots() -> None:
    nft = kernel()
    bring(nft, web(*B[:4]))
    steps = bring(nft, web(*B[:3]))
    changed = sum(
        len(step.elements)
        for step in steps
        if isinstance(step, AddElements) and step.name.kind == "slots"
    )
    assert 4093 / 4 * 0.9 < changed < 4093 / 4 * 1.1


def test_renaming_and_reordering_backends_changes_nothing() -> None:
    nft = kernel()
    bring(nft, web(B[0], B[1]))
    assert bring(nft, web(replace(B[1], name="x"), replace(B[0], name="y"))) == ()


def test_a_larger_map_takes_the_counts_over() -> None:
    nft = kernel()
    config = web(B[0], B[1])
    bring(nft, config)
    ids = number_config(config, Ids())
    mark = ids.services["web"] << 16 | ids.backends[B[0].key]
    nft.element_counts["nexthop4_1024"] = {mark: Count(3, 300)}
    bring(nft, web(*(make_backend(number) for number in range(1100))))
    assert nft.counts()["nexthop4_4096"][mark] == Count(3, 300)
    assert "nexthop4_1024" not in nft.counts()


def test_what_others_put_into_the_table_goes() -> None:
    nft = kernel()
    bring(nft, web(B[0]))
    assert nft.table is not None
    nft.table = Ruleset(
        {**nft.table.maps, "stray": {}},
        {**nft.table.chains, "stray": Chain((Rule("", "accept"),))},
        nft.table.counters | {"stray"},
    )
    bring(nft, web(B[0]))


def test_a_rule_that_was_edited_is_written_again() -> None:
    nft = kernel()
    bring(nft, web(B[0]))
    assert nft.table is not None
    chains = dict(nft.table.chains)
    chains["service4.web"] = Chain((Rule("", "drop"), *chains["service4.web"].rules))
    nft.table = replace(nft.table, chains=chains)
    steps = bring(nft, web(B[0]))
    assert [type(step) for step in steps] == [FlushChain, AddRules]


def test_a_base_chain_on_the_wrong_device_is_made_anew() -> None:
    nft = kernel()
    bring(nft, web(B[0]))
    assert nft.table is not None
    chains = dict(nft.table.chains)
    chains["in.eth0"] = replace(chains["in.eth0"], device="eth1")
    nft.table = replace(nft.table, chains=chains)
    steps = bring(nft, web(B[0]))
    assert [type(step) for step in steps] == [FlushChain, DeleteChain, AddChain, AddRules]


def test_references_are_satisfied_in_order() -> None:
    """Chains before the elements and rules that name them; maps before rules; removal last."""
    steps = diff_rulesets(None, make_ruleset(web(B[0])))
    order = [type(step) for step in steps]
    assert order.index(AddRules) > max(i for i, s in enumerate(order) if s is AddMap)
    # The kernel walks a map's elements for every chain that names it.
    assert order.index(AddElements) > max(i for i, s in enumerate(order) if s is AddRules)
    assert order.index(AddElements) > max(i for i, s in enumerate(order) if s is AddChain)
    gone = diff_rulesets(make_ruleset(web(B[0])), Ruleset())
    order = [type(step) for step in gone]
    assert order.index(DeleteMap) > max(i for i, s in enumerate(order) if s is FlushChain)
    assert order.index(DeleteChain) > max(i for i, s in enumerate(order) if s is DeleteMap)


def test_a_map_goes_in_a_change_of_its_own() -> None:
    nft = kernel()
    bring(nft, web(*B[:2]))
    changed, gone = in_turn(bring(nft, make_config()))
    assert {type(step) for step in gone} <= {DeleteMap, DeleteChain, DeleteCounter}
    assert not any(isinstance(step, DeleteMap) for step in changed)
    only_left_over = tuple(step for step in gone if isinstance(step, DeleteMap))
    assert in_turn(only_left_over) == (only_left_over, ())
    assert in_turn(()) == ((), ())


def test_long_lists_of_elements_are_several_commands() -> None:
    name = MapName.parse("slots_1_65537")
    assert name is not None
    text = render_transaction((AddElements(name, dict.fromkeys(range(65537), 1)),))
    lines = text.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("add element netdev tula slots_1_65537 {") for line in lines)


def test_a_map_that_was_left_over_does_not_count_twice() -> None:
    counts = {
        "nexthop4_1024": {1: Count(5, 500), 2: Count(1, 100)},
        "nexthop4_2048": {1: Count(7, 700), 3: Count(2, 200)},
        "nexthop6_1024": {1: Count(10, 1000)},
    }
    assert counts_by_id(counts) == {1: Count(17, 1700), 2: Count(1, 100), 3: Count(2, 200)}
