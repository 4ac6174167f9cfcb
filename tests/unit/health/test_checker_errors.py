"""Errors of Tula's own in a probe: it goes on, and they are logged and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from support.probe_fakes import SILENT, Network, Running, by_vip, direct
from support.virtual_time import run_virtually
from tula.health.check import Outcome


class Cancelled(Network):
    """Some library lets a cancellation of its own out of the probe."""

    async def send(self, *arguments: object) -> Outcome:
        await super().send(*arguments)
        if len(self.asked) == 2:
            raise asyncio.CancelledError
        return Outcome(True, "tcp: connected")


def broken_clock(running: Running) -> None:
    """Whatever takes the outcome fails while ``clock`` does."""

    def fail() -> float:
        running.checker._clock = running.loop.time
        raise ValueError("no time")

    running.checker._clock = fail


def nothing(_: Running) -> None:
    pass


@pytest.mark.parametrize(
    ("network", "after", "error"),
    [(Network, broken_clock, "ValueError('no time')"), (Cancelled, nothing, "CancelledError()")],
)
def test_a_probe_outlives_an_error_of_its_own(
    network: type[Network], after: Callable[[Running], None], error: str
) -> None:
    async def main() -> None:
        made = network()
        async with Running(made) as running:
            running.check(direct())
            after(running)
            await asyncio.sleep(20)
            assert len(made.times("10.0.0.1")) == 10
            assert running.up() is True
            assert running.checker.errors == 1

    with capture_logs() as logs:
        run_virtually(main())
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("probe-error", "error")
    assert (line["subject"], line["message"]) == ("web/one", error)
    assert "checker.py:" in line["trace"]


def test_the_same_error_is_logged_once_a_minute_and_counted_each_time() -> None:
    class Broken(Network):
        async def send(self, *_: object) -> Outcome:
            raise ValueError("a mistake")

    async def main() -> None:
        async with Running(Broken()) as running:
            running.check(direct(), direct("10.0.0.2", backend="two"))
            await asyncio.sleep(20)
            assert running.checker.errors == 20

    with capture_logs() as logs:
        run_virtually(main())
    (line,) = logs
    assert (line["subject"], line["message"]) == ("tcp to 10.0.0.1", "ValueError('a mistake')")


def test_an_error_in_a_diagnosis_is_logged_and_the_next_one_succeeds() -> None:
    async def main() -> None:
        network = Network({("tcp", "10.0.0.100"): SILENT, ("icmp", "10.0.0.100"): SILENT})
        async with Running(network) as running:
            on_evidence = running.checker._on_evidence

            def fail(_: object) -> None:
                running.checker._on_evidence = on_evidence
                raise ValueError("cannot tell")

            running.checker._on_evidence = fail
            running.check(by_vip())
            await asyncio.sleep(10)
            assert running.checker.errors == 1
            network.answers["icmp", "10.0.0.100"] = Outcome(True, "icmp: echo reply")
            await asyncio.sleep(60)
            ((_, evidence),) = running.reasons
            assert "accepts the VIP" in evidence

    with capture_logs() as logs:
        run_virtually(main())
    assert [line["message"] for line in logs] == ["ValueError('cannot tell')"]
