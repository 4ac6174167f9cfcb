"""Shares that follow connections: played out, step by step, without chance."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.plan.least_connections import STEPS, least_shares, whole_shares

EVEN = {"a": 100, "b": 100, "c": 100}


def play(
    weights: Mapping[str, int],
    held: dict[str, float],
    ends: Mapping[str, float],
    *,
    arrive: float,
    steps: int,
) -> list[dict[str, float]]:
    """What each holds after each step: ``arrive`` come, ``ends`` is the part that goes."""
    shares: dict[str, float] = {}
    whole: dict[str, int] = {}
    found = []
    for _ in range(steps):
        counted = {name: round(number) for name, number in held.items()}
        shares = least_shares(weights, counted, shares)
        whole = whole_shares(shares, whole)
        total = sum(whole.values())
        held = {
            name: held[name] * (1 - ends[name]) + arrive * whole.get(name, 0) / total
            for name in held
        }
        found.append(held)
    return found


def test_what_one_holds_for_long_is_evened_out_by_new_ones() -> None:
    held = {"a": 50.0, "b": 0.0, "c": 0.0}
    played = play(EVEN, held, dict.fromkeys(EVEN, 0.0), arrive=10, steps=40)
    a, b, c = played[9].values()
    assert a < 65, "of the first 100 few go to who has 50; by turns it would have 83"
    assert b == pytest.approx(c)
    *_, last = played
    assert max(last.values()) < 1.1 * min(last.values())


@pytest.mark.parametrize("ends", [1.0, 0.5, 0.1, 0.02])
@pytest.mark.parametrize("arrive", [3, 50, 3000])
def test_it_settles_whatever_the_life_of_a_connection(ends: float, arrive: float) -> None:
    held = {"a": 1000.0, "b": 0.0, "c": 10.0}
    played = play(EVEN, held, dict.fromkeys(EVEN, ends), arrive=arrive, steps=400)
    for each in played[300:]:
        assert max(each.values()) < 1.15 * min(each.values()) + 1


def test_weights_count() -> None:
    weights = {"a": 100, "b": 300}
    held = {"a": 0.0, "b": 0.0}
    played = play(weights, held, dict.fromkeys(weights, 0.2), arrive=100, steps=100)
    assert played[-1]["b"] / played[-1]["a"] == pytest.approx(3, rel=0.1)


def test_a_backend_whose_connections_last_longer_gets_fewer() -> None:
    played = play(
        EVEN, dict.fromkeys(EVEN, 0.0), {"a": 0.1, "b": 0.3, "c": 0.3}, arrive=300, steps=200
    )
    last = played[-1]
    assert 1.0 < last["a"] / last["b"] < 1.4, "by weights alone it would hold three times as many"


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 65535), min_size=1),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1_000_000)),
)
def test_who_serves_has_a_share_of_1_to_100_and_who_does_not_has_none(
    weights: dict[str, int], held: dict[str, int]
) -> None:
    shares: dict[str, float] = {}
    for _ in range(3):
        shares = least_shares(weights, held, shares)
        whole = whole_shares(shares, {})
        assert whole.keys() == {name for name, weight in weights.items() if weight}
        assert all(1 <= number <= STEPS for number in whole.values())


def test_small_moves_are_none() -> None:
    assert whole_shares({"a": 0.5, "b": 0.49}, {"a": 99, "b": 100}) == {"a": 99, "b": 100}
    assert whole_shares({"a": 0.5, "b": 0.4}, {"a": 99, "b": 100}) == {"a": 100, "b": 80}
    assert whole_shares({"a": 0.5}, {"a": 99, "b": 100}) == {"a": 100}
