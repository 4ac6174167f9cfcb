"""What no event told of is found beside the writer, which hears of it only if something differs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support.builders import make_backend, make_config, make_service
from support.daemon import CONFIG, FakeDaemon
from tula.daemon.answers import Answers, CompareRequest, Comparison, PlanRequest, View
from tula.daemon.drift import DriftDetector
from tula.daemon.snapshot import Snapshot
from tula.engine.control import ApplyOutcome, DaemonFacts
from tula.model.config import Config, Scheduler
from tula.model.errors import KernelError
from tula.model.health import Health

LEAST = make_config(
    make_service(backends=[make_backend(0), make_backend(1)], scheduler=Scheduler.LEAST_CONNECTIONS)
)


def accepted(directory: Path, config: Config = CONFIG) -> FakeDaemon:
    daemon = FakeDaemon(directory, config)
    daemon.accept(config)
    return daemon


def view_of(daemon: FakeDaemon) -> View:
    snapshot = daemon.writer.snapshot
    assert snapshot.configuration is not None
    return View(
        configuration=snapshot.configuration,
        now=1000.0,
        facts=DaemonFacts(1, 2.0, Path("/etc/tula/tula.yaml")),
        statuses=snapshot.statuses.of,
        shares=snapshot.shares,
        remembered=snapshot.remembered,
    )


def compared(daemon: FakeDaemon) -> Comparison:
    found = Answers(daemon.machine.adapters).answer(CompareRequest(), view_of(daemon))
    assert isinstance(found, Comparison)
    return found


def has_drifted(daemon: FakeDaemon) -> bool:
    async def compare() -> Comparison:
        return compared(daemon)

    async def main() -> bool:
        return await detector(lambda: daemon.writer.snapshot, compare).has_drifted()

    return asyncio.run(main())


def detector(
    snapshot: Callable[[], Snapshot], compare: Callable[[], Awaitable[Comparison]]
) -> DriftDetector:
    return DriftDetector(snapshot, compare, lambda: None, 3600.0, pause=0.0)


def test_a_kernel_as_it_was_left_is_no_drift_and_is_only_read(tmp_path: Path) -> None:
    daemon = accepted(tmp_path)
    before, revision = daemon.writer.snapshot, daemon.machine.nftables.generation()
    assert not has_drifted(daemon)
    assert daemon.writer.snapshot is before
    assert daemon.machine.nftables.generation() == revision


def test_a_table_that_is_gone_is_drift(tmp_path: Path) -> None:
    daemon = accepted(tmp_path)
    daemon.machine.nftables.table = None
    assert has_drifted(daemon)


def test_a_vip_that_is_gone_is_drift(tmp_path: Path) -> None:
    daemon = accepted(tmp_path)
    network = daemon.machine.network
    (owned,) = network.view(()).owned
    network.remove_address(owned)
    assert has_drifted(daemon)


def test_a_verdict_that_the_writer_has_not_acted_on_yet_is_no_drift(tmp_path: Path) -> None:
    daemon = accepted(tmp_path)
    view = replace(view_of(daemon), findings={("web", "b0"): Health(False, 5.0, "tcp: refused")})
    found = Answers(daemon.machine.adapters).answer(CompareRequest(), view)
    assert found == Comparison(differs=False)


def test_shares_of_least_connections_are_no_drift_and_nothing_to_plan(tmp_path: Path) -> None:
    daemon = accepted(tmp_path, LEAST)
    moved = {("web", "b0"): 50, ("web", "b1"): 0}
    result = daemon.writer.count(moved, {})
    assert result is not None
    assert result.change
    assert not has_drifted(daemon)
    plan = Answers(daemon.machine.adapters).answer(PlanRequest(None, False), view_of(daemon))
    assert isinstance(plan, ApplyOutcome)
    assert (plan.changed, plan.steps, plan.summary) == (False, b"[]", ())


@pytest.mark.parametrize(
    ("found", "drifted"),
    [
        (Comparison(differs=False, problems=("a: no route",)), False),
        (Comparison(differs=False), True),
        (Comparison(differs=False, problems=("b: no route",)), True),
        (Comparison(differs=True, problems=("a: no route",)), True),
    ],
)
def test_what_is_in_the_way_is_compared_too(
    tmp_path: Path, found: Comparison, drifted: bool
) -> None:
    snapshot = replace(accepted(tmp_path).writer.snapshot, obstacles=("a: no route",))

    async def main() -> None:
        async def compare() -> Comparison:
            return found

        assert await detector(lambda: snapshot, compare).has_drifted() is drifted

    asyncio.run(main())


def test_a_change_of_its_own_meanwhile_is_compared_again(tmp_path: Path) -> None:
    snapshot = accepted(tmp_path).writer.snapshot
    asked: list[Snapshot] = []

    def run(answers: list[bool], *, changing: bool) -> bool:
        asked.clear()
        revisions = iter(range(100))

        def now() -> Snapshot:
            return replace(snapshot, revision=next(revisions)) if changing else snapshot

        async def compare() -> Comparison:
            asked.append(snapshot)
            return Comparison(differs=answers[len(asked) - 1])

        return asyncio.run(detector(now, compare).has_drifted())

    assert not run([True, False], changing=True)
    assert len(asked) == 2
    assert run([True] * 5, changing=True), "then the writer tells"
    assert len(asked) == 5
    assert run([True], changing=False)


def test_what_cannot_be_compared_beside_the_writer_is_compared_by_it(tmp_path: Path) -> None:
    snapshot = accepted(tmp_path).writer.snapshot

    async def fails() -> Comparison:
        raise KernelError("no reader process")

    async def never() -> Comparison:
        raise AssertionError

    assert asyncio.run(detector(lambda: snapshot, fails).has_drifted())
    for unknown in (
        replace(snapshot, applied=None),
        replace(snapshot, unsaved=True),
        replace(snapshot, configuration=None),
    ):
        shown = unknown
        assert asyncio.run(detector(lambda: shown, never).has_drifted())  # noqa: B023


def test_it_looks_again_and_again_and_asks_for_repair(tmp_path: Path) -> None:
    snapshot, repairs = accepted(tmp_path).writer.snapshot, asyncio.Queue[None]()

    async def main() -> None:
        async def compare() -> Comparison:
            return Comparison(differs=True)

        detecting = DriftDetector(
            lambda: snapshot, compare, lambda: repairs.put_nowait(None), 0.001
        )
        task = asyncio.create_task(detecting.run())
        for _ in range(3):
            await asyncio.wait_for(repairs.get(), 60)
        task.cancel()

    asyncio.run(main())
