"""Numbers that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from support.builders import (
    configs,
    make_backend,
    make_config,
    make_service,
    number_config,
)
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.numbering import merge_ids
from tula.model.config import Backend, Config, Connections, MarkRange, Scheduler
from tula.model.problem import ProblemsError
from tula.plan.slots import maglev_content

B = [make_backend(number) for number in range(10)]


def two_services(*backends: Backend) -> Config:
    return make_config(
        make_service("web", backends=backends),
        make_service("api", vips=["10.0.0.101"], backends=backends),
    )


@given(configs(), configs())
def test_what_stays_keeps_its_numbers(first: Config, second: Config) -> None:
    before = number_config(first, Ids())
    after = number_config(second, before)
    for name, number in after.services.items():
        assert before.services.get(name, number) == number
    for key, number in after.backends.items():
        assert before.backends.get(key, number) == number
    assert len(set(after.services.values())) == len(after.services)
    assert len(set(after.backends.values())) == len(after.backends)


@given(configs(), configs())
def test_what_comes_takes_no_number_that_just_left(first: Config, second: Config) -> None:
    before = number_config(first, Ids())
    after = number_config(second, before)
    fresh = {number for key, number in after.backends.items() if key not in before.backends}
    assert not fresh & set(before.backends.values())


def test_a_freed_number_is_the_last_to_be_used_again() -> None:
    ids = number_config(two_services(B[0]), Ids())
    for backend in B[1:6]:
        ids = number_config(two_services(backend), ids)
    assert ids.backends == {B[5].key: 6}


def test_services_with_equal_backends_share_a_table() -> None:
    ids = number_config(two_services(B[0], B[1]), Ids())
    assert ids.tables["web"] == ids.tables["api"]
    reordered = make_config(
        make_service("web", backends=[B[0], B[1]]),
        make_service("api", vips=["10.0.0.101"], backends=[B[1], replace(B[0], name="other")]),
    )
    assert number_config(reordered, ids) == ids


def test_the_service_that_differs_takes_another_table() -> None:
    ids = number_config(two_services(B[0], B[1]), Ids())
    heavier = replace(B[1], weight=200)
    after = number_config(
        make_config(
            make_service("web", backends=[B[0], heavier]),
            make_service("api", vips=["10.0.0.101"], backends=[B[0], B[1]]),
            make_service("img", vips=["10.0.0.102"], backends=[B[0], B[1]]),
        ),
        Ids(ids.services, ids.backends, {**ids.tables, "img": ids.tables["api"]}),
    )
    # Most of those that shared it go on sharing it, and their rules stand still.
    assert after.tables["api"] == after.tables["img"] == ids.tables["api"]
    assert after.tables["web"] != ids.tables["web"]


def test_nobody_to_choose_from_needs_no_table() -> None:
    ids = number_config(two_services(replace(B[0], weight=0)), Ids())
    assert ids.tables == {}


def test_the_content_of_a_table_knows_no_names() -> None:
    service = make_service(backends=[B[1], replace(B[0], name="x")])
    assert maglev_content(service) == ((B[0].key, 100), (B[1].key, 100))


def test_ids_live_in_the_range_of_marks() -> None:
    narrow = replace(two_services(B[0]), marks=MarkRange(0x50000, 0x6FFFF))
    moved = number_config(narrow, number_config(two_services(B[0]), Ids()))
    assert sorted(moved.services.values()) == [5, 6]


def test_a_range_that_is_too_small_is_an_error_that_says_so() -> None:
    narrow = replace(two_services(B[0]), marks=MarkRange(0x50000, 0x5FFFF))
    with pytest.raises(ProblemsError, match="room for 1 services"):
        number_config(narrow, Ids())


def test_the_kernel_wins_over_the_state_directory() -> None:
    stored = Ids({"web": 1, "api": 2}, {"10.0.0.10": 1, "10.0.0.11": 2}, {"web": 3})
    observed = Ids({"web": 2}, {"10.0.0.10": 7})
    merged = merge_ids(stored, observed)
    assert merged.services == {"web": 2}  # api's number is taken in the kernel
    assert merged.backends == {"10.0.0.10": 7, "10.0.0.11": 2}
    assert merged.tables == {"web": 3}


def test_a_backend_is_found_again_by_any_of_its_addresses() -> None:
    ids = number_config(make_config(make_service(backends=[B[0]])), Ids({}, {"2001:db8::a": 77}))
    assert ids.backends == {B[0].key: 77}


def test_a_backend_that_returns_gets_its_number_back() -> None:
    first = number_config(two_services(B[0], B[1]), Ids(), now=0.0)
    without = number_config(two_services(B[0], B[2]), first, now=100.0)
    assert without.left_backends == {B[1].key: (2, 100.0)}
    assert without.backends == {B[0].key: 1, B[2].key: 3}
    back = number_config(two_services(B[0], B[1]), without, now=200.0)
    assert back.backends == first.backends
    assert back.left_backends == {B[2].key: (3, 200.0)}


def test_a_service_that_returns_gets_its_number_back() -> None:
    both = number_config(two_services(B[0]), Ids(), now=0.0)
    web_alone = make_config(make_service("web", backends=[B[0]]))
    alone = number_config(web_alone, both, now=1.0)
    assert alone.left_services == {"api": (both.services["api"], 1.0)}
    assert number_config(two_services(B[0]), alone, now=2.0).services == both.services


def narrow(*names: str, tcp: float = 7200.0) -> Config:
    """Services, and marks for two of them."""
    return replace(
        make_config(*(make_service(name, backends=[B[0]]) for name in names)),
        marks=MarkRange(0x10000, 0x2FFFF),
        connections=Connections(tcp=tcp),
    )


def test_a_number_is_free_again_when_the_longest_life_has_passed() -> None:
    ids = number_config(narrow("a", "b"), Ids(), now=0.0)
    without = number_config(narrow("a"), ids, now=1000.0)
    kept = number_config(narrow("a"), without, now=1000.0 + 7200.0)
    assert kept.left_services == {"b": (2, 1000.0)}
    forgotten = number_config(narrow("a"), kept, now=1000.0 + 7200.1)
    assert forgotten.left_services == {}
    assert number_config(narrow("a", "c"), forgotten, now=9000.0).services == {"a": 1, "c": 2}


def test_the_longest_life_is_that_of_the_document() -> None:
    ids = number_config(narrow("a", "b", tcp=300.0), Ids(), now=0.0)
    without = number_config(narrow("a", tcp=300.0), ids, now=10.0)
    # UDP's 120 s and the half-open's 60 s are shorter.
    assert number_config(narrow("a", tcp=300.0), without, now=310.0).left_services
    assert not number_config(narrow("a", tcp=300.0), without, now=310.1).left_services


def test_a_range_without_other_numbers_gives_those_of_what_left() -> None:
    ids = number_config(narrow("a", "b"), Ids(), now=0.0)
    after = number_config(narrow("a", "c"), ids, now=1.0)
    assert after.services == {"a": 1, "c": 2}
    # The one that left cannot have it back while another has it.
    wider = replace(narrow("b", "c", "a"), marks=MarkRange(0x10000, 0x3FFFF))
    assert number_config(wider, after, now=2.0).services == {"a": 1, "b": 3, "c": 2}


@given(configs(), configs(), configs())
def test_no_number_is_used_while_a_table_may_hold_it(
    first: Config, second: Config, third: Config
) -> None:
    ids = Ids()
    owners: dict[int, str] = {}
    for now, configuration in enumerate((first, second, third)):
        ids = number_config(configuration, ids, now=float(now))
        for key, number in ids.backends.items():
            assert owners.setdefault(number, key) == key


def test_services_that_take_turns_share_by_what_turns_depend_on() -> None:
    equal = [replace(B[0], weight=1), replace(B[1], weight=3)]
    config = make_config(
        make_service("one", backends=equal, scheduler=Scheduler.RR),
        make_service("two", ["10.0.0.101"], backends=B[:2], scheduler=Scheduler.RR),
        make_service("three", ["10.0.0.102"], backends=equal, scheduler=Scheduler.WRR),
        make_service("four", ["10.0.0.103"], backends=equal),
    )
    ids = number_config(config, Ids())
    assert ids.wrr["one"] == ids.wrr["two"] != ids.wrr["three"]
    assert "four" not in ids.wrr


def test_a_renamed_service_keeps_its_number() -> None:
    ids = number_config(two_services(B[0]), Ids())
    renamed = make_config(
        make_service("site", backends=[B[0]]),
        make_service("other", ["10.0.0.101"], backends=[B[0]]),
    )
    after = number_config(renamed, ids, renamed={"site": "web", "other": "web"})
    assert after.services["site"] == ids.services["web"]
    assert after.services["other"] not in ids.services.values(), "one of them alone"
    assert after.left_services == {"api": (ids.services["api"], 0.0)}
