"""Consecutive outcomes to up and down."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tula.health.machine import ProbeState, advanced, first_due, next_due, pause
from tula.model.monitor import HealthMonitor, TcpProbe

OUTCOMES = st.lists(st.booleans(), max_size=40)
SETTINGS = st.builds(
    HealthMonitor,
    probe=st.just(TcpProbe()),
    interval=st.floats(0.01, 100),
    rise=st.integers(1, 5),
    fall=st.integers(1, 5),
    fast_interval=st.one_of(st.none(), st.floats(0.001, 0.01)),
)


def after(outcomes: list[bool], settings: HealthMonitor) -> list[ProbeState]:
    counts = [ProbeState()]
    for passed in outcomes:
        counts.append(advanced(counts[-1], passed, settings))
    return counts


@given(OUTCOMES, SETTINGS)
def test_a_change_needs_the_last_outcomes_to_agree(
    outcomes: list[bool], settings: HealthMonitor
) -> None:
    counts = after(outcomes, settings)
    for end, (before, now) in enumerate(pairwise(counts), start=1):
        risen = end >= settings.rise and all(outcomes[end - settings.rise : end])
        fallen = end >= settings.fall and not any(outcomes[end - settings.fall : end])
        assert now.up is (True if risen else False if fallen else before.up)


@given(OUTCOMES, SETTINGS)
def test_flaps_are_changes_after_the_first_decision(
    outcomes: list[bool], settings: HealthMonitor
) -> None:
    ups = [count.up for count in after(outcomes, settings) if count.up is not None]
    changes = sum(a is not b for a, b in pairwise(ups))
    assert after(outcomes, settings)[-1].flaps == changes


@given(OUTCOMES, SETTINGS)
def test_it_is_fast_while_the_state_is_open(outcomes: list[bool], settings: HealthMonitor) -> None:
    count = after(outcomes, settings)[-1]
    against = count.up is None or (bool(outcomes) and outcomes[-1] is not count.up)
    fast = settings.fast_interval if settings.fast_interval is not None else settings.interval
    assert pause(count, settings) == (fast if against else settings.interval)


@given(SETTINGS, st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 10))
def test_the_next_is_due_an_interval_after_the_last_was_due(
    settings: HealthMonitor, chance: float, due: float, took: float
) -> None:
    up = ProbeState(up=True, passes=1)
    again = next_due(due, due + took, up, settings, chance)
    assert again >= due + took
    if took < 0.9 * settings.interval:
        assert abs(again - due - settings.interval) <= 0.1001 * settings.interval + 1e-6


@given(SETTINGS, st.integers(1, 50), st.floats(0, 0.999))
def test_starts_are_spread_over_the_first_pause(
    settings: HealthMonitor, total: int, chance: float
) -> None:
    dues = [first_due(0.0, position, total, settings, chance) for position in range(total)]
    assert dues == sorted(dues)
    assert dues[0] >= 0
    assert dues[-1] <= pause(ProbeState(), settings)
