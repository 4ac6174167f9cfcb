"""Rates from readings of counters."""

from __future__ import annotations

from tula.engine.rates import Rate, RateMeter, rates_between
from tula.model.stats import Count

KEY = ("web", "10.0.0.11")


def test_a_counter_that_was_made_anew_counts_from_zero() -> None:
    before, now = {KEY: Count(100, 1000)}, {KEY: Count(10, 500), ("web", "new"): Count(4, 8)}
    assert rates_between(before, now, 2.0) == {KEY: Rate(5, 250), ("web", "new"): Rate(2, 4)}


def test_readings() -> None:
    meter = RateMeter()
    assert meter.note(0.0, {KEY: Count(0, 0)}) is None
    assert meter.note(0.5, {KEY: Count(5, 50)}) is None, "too close"
    assert meter.note(2.0, {KEY: Count(20, 200)}) == {KEY: Rate(10, 100)}
    assert meter.note(2.1, {KEY: Count(21, 210)}) == {KEY: Rate(10, 100)}, "since the one before"
    assert meter.note(4.0, {KEY: Count(60, 600)}) == {KEY: Rate(20, 200)}
    assert meter.note(500.0, {KEY: Count(60, 600)}) is None, "that was long ago"
