"""How long probes take, by service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.probe_fakes import PASSED, SILENT, TCP, Network, Running, direct
from support.virtual_time import run_virtually
from tula.health.check import Outcome
from tula.health.timing import BOUNDS, Durations, DurationsByService, Histogram

FAST = replace(PASSED, seconds=0.002)
SLOW = replace(SILENT, seconds=1.0)
WEB, API = frozenset({"web"}), frozenset({"web", "api"})


@given(st.lists(st.floats(0, 100)))
def test_every_probe_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(
    seconds: list[float],
) -> None:
    durations = Durations(WEB)
    for each in seconds:
        durations.record(each)
    histogram = durations.read()
    assert histogram.count == len(seconds)
    assert histogram.seconds == pytest.approx(sum(seconds))
    bounds = (*BOUNDS, float("inf"))
    assert histogram.cumulative == tuple(
        (bound, sum(each <= bound for each in seconds)) for bound in bounds
    )


def test_what_several_services_share_counts_for_each() -> None:
    durations = DurationsByService()
    durations.of(WEB).record(0.002)
    durations.of(API).record(0.2)
    assert durations.of(API) is durations.of(frozenset(API))
    found = durations.read()
    assert (found["web"].count, found["web"].seconds) == (2, pytest.approx(0.202))
    assert (found["api"].count, found["api"].seconds) == (1, 0.2)


def test_totals_outlast_other_checks_and_go_with_the_service() -> None:
    durations = DurationsByService()
    durations.of(API).record(0.2)
    durations.restart(["web"])
    durations.of(WEB).record(0.2)
    assert durations.read() == {"web": Histogram(durations.of(WEB).read().counts, 0.2) + one(0.2)}


def one(seconds: float) -> Histogram:
    durations = Durations(WEB)
    durations.record(seconds)
    return durations.read()


def test_the_checker_counts_what_was_sent() -> None:
    async def main() -> None:
        network = Network({("tcp", "10.0.0.1"): FAST, ("tcp", "10.0.0.2"): SLOW})
        network.answers["tcp", "10.0.0.3"] = Outcome(None, "tcp: too many open files")
        async with Running(network) as running:
            check = partial(running.check, direct(), direct("10.0.0.2", service="api"))
            check(direct("10.0.0.3", service="api"), direct("10.0.0.1", service="www"))
            await asyncio.sleep(10)
            found = running.checker.probe_durations()
            sent = {name: len(network.times(f"10.0.0.{n}")) for n, name in ((1, "web"), (2, "api"))}
            assert {name: found[name].count for name in found} == {**sent, "www": sent["web"]}
            assert found["api"].seconds == sent["api"]
            assert dict(found["web"].cumulative)[0.001] == 0
            assert dict(found["web"].cumulative)[0.0025] == sent["web"]
            check(direct("10.0.0.2", replace(TCP, rise=9), service="web"))
            assert running.checker.probe_durations() == {n: found[n] for n in ("web", "api")}
            await asyncio.sleep(10)
            later = running.checker.probe_durations()
            assert later["web"].count > found["web"].count

    run_virtually(main())
