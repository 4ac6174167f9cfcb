"""Maglev tables: balance, weights, disturbance, and one table written down."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.plan.maglev import (
    LARGEST,
    SMALLEST,
    _Kept,
    maglev_table,
    table_size,
    wrr_table,
)


def equal(count: int) -> list[tuple[str, int]]:
    return [(f"10.0.{n // 250}.{n % 250 + 1}", 100) for n in range(count)]


def owners(backends: list[tuple[str, int]], slots: int) -> list[str]:
    return [backends[index][0] for index in maglev_table(backends, slots)]


def test_tables_are_kept_up_to_a_number_of_slots() -> None:
    kept = _Kept(3 * 251)
    contents = [((f"10.0.0.{n}", 1), ("10.0.1.1", 2)) for n in range(4)]
    first, *others = (kept.table(content, 251) for content in contents)
    assert first == maglev_table(contents[0], 251)
    assert kept.table(contents[3], 251) is others[2]
    again = kept.table(contents[0], 251)
    assert again == first
    assert again is not first, "the oldest had to go"


def test_a_table_written_down() -> None:
    """Another version of Tula must choose alike: run lengths of the table of three backends."""
    table = maglev_table([("10.0.0.1", 1), ("10.0.0.2", 2), ("2001:db8::3", 3)], 251)
    runs = "".join(f"{'abc'[owner]}{len(list(run))}" for owner, run in groupby(table))
    assert runs == RUNS


RUNS = (
    "b1a1c1b1a1c1b3c2a1c1b4c2b2a1b2c10b1a1c1b1c1b2c1b2a1b2c3b2c3a2b1a1c3a2c2a1c1b1c5b1a1c1b1a2c5a2c1b3c2a1b2c1a1c1b2c4b3c1a2c5a1b1c3b4c3a1c1b3c1"
    "b1a2b1c1b1a1c2a1b2a1b1c3b1c1b1c1b1c1a1c1b2c1b1c1a1c5a1c5a1b1a1b1c1b1a1c1a2c2b2c2b2c1a1b2c2b3c1a1c1a1c4b1c1b1c2b3c5a1c1b3c4a1b1c1b2c7b3a1b1c1"
)


@given(
    st.dictionaries(st.text("0123456789.", min_size=1), st.integers(0, 65535), max_size=40),
    st.sampled_from([251, 1009, 4093]),
)
def test_slots_follow_weights(weights: dict[str, int], slots: int) -> None:
    backends = list(weights.items())
    table = maglev_table(backends, slots)
    total = sum(weights.values())
    if not total:
        assert table == ()
        return
    assert len(table) == slots
    shares = Counter(table)
    for index, (_, weight) in enumerate(backends):
        # Turns come by weight: nobody is more than a turn away from its exact share, but that
        # the turns which end the table may go to others.
        assert abs(shares[index] - slots * weight / total) <= len(backends)
        assert weight or not shares[index]


@given(st.permutations(equal(9)))
def test_order_does_not_matter(backends: list[tuple[str, int]]) -> None:
    assert owners(backends, 4093) == owners(equal(9), 4093)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 12, 13, 50, 100, 500])
def test_few_flows_move_needlessly_when_one_leaves(count: int) -> None:
    """At the size that so many backends get: those of others that move, at most 1 %."""
    backends = equal(count)
    slots = table_size(count)
    before = owners(backends, slots)
    for gone in range(0, count, max(1, count // 4)):
        key = backends[gone][0]
        after = owners(backends[:gone] + backends[gone + 1 :], slots)
        moved = sum(b != a for b, a in zip(before, after, strict=True) if b != key)
        assert moved <= slots * 0.01
        assert key not in after


def test_a_weight_change_moves_little() -> None:
    backends = equal(10)
    before = owners(backends, LARGEST)
    heavier = [(key, 200 if key == "10.0.0.1" else weight) for key, weight in backends]
    after = owners(heavier, LARGEST)
    moved_between_others = sum(
        b != a and a != "10.0.0.1" for b, a in zip(before, after, strict=True)
    )
    # Its share grows from 1/10 to 2/11; what moves between others is needless.
    assert moved_between_others <= LARGEST * 0.015


def test_sizes_are_primes_with_about_a_thousand_slots_a_backend() -> None:
    for count in range(1, 66):
        slots = table_size(count)
        assert all(slots % divisor for divisor in range(2, int(slots**0.5) + 1))
        assert slots >= 1000 * count or slots == LARGEST
    assert table_size(1) == 4093
    assert table_size(500) == LARGEST


def turns(**weights: int) -> str:
    """Whose turn it is, by the names of one letter."""
    backends = list(weights.items())
    return "".join(backends[index][0] for index in wrr_table(backends))


def test_equal_weights_take_turns_one_after_the_other() -> None:
    assert turns(a=1, b=1, c=1) == "abc"
    assert turns(b=100, c=100, a=100) == "abc", "in the order of keys, however large the weights"


def test_turns_come_as_often_as_weights_say_and_spread() -> None:
    assert turns(a=1, b=2, c=3) == "cbcabc"
    assert turns(a=100, b=200, c=300) == turns(a=1, b=2, c=3)


def test_weight_0_has_no_turn() -> None:
    assert turns(a=0, b=1) == "b"
    assert turns(a=0, b=0) == ""
    assert wrr_table([]) == []


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=8))
def test_turns_are_few_and_in_proportion(weights: list[int]) -> None:
    backends = [(str(n), weight) for n, weight in enumerate(weights)]
    table = wrr_table(backends)
    assert len(table) <= SMALLEST
    counted, whole = Counter(table), sum(weights)
    for index, weight in enumerate(weights):
        share = len(table) * weight / whole if whole else 0
        assert abs(counted[index] - share) < 1 + len(weights)
        assert counted[index] == 0 or weight
