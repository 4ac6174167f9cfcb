"""The control loop around a writer on the fake kernel: what triggers a cycle, and what follows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from support.configurations import render_config
from support.loop_scene import B0, CONFIG, OTHER, Scene
from tula.daemon.checks import Checks
from tula.daemon.snapshot import Snapshot
from tula.daemon.triggers import GATHER, Trigger
from tula.engine.control import BusyError, Order
from tula.engine.statistics import CycleOutcome
from tula.kernel.events import Events
from tula.model.errors import KernelError
from tula.model.event import EventKind
from tula.model.health import Health, Override, State


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


def test_it_starts_with_the_files_configuration_in_one_cycle(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            assert scene.snapshot.configuration is not None
            assert scene.snapshot.configuration.config == CONFIG
            assert scene.cycles == 1
            assert len(scene.kernel.transactions) == 1
            assert scene.checker.sets == 1

    run(main)


def test_a_verdict_reaches_the_kernel_and_is_timed(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            scene.checker.decide(B0, up=False)
            scene.loop.trigger(Trigger.HEALTH)
            await scene.until(lambda: scene.cycles == 2)
            assert scene.snapshot.statuses.of[B0].state is State.DOWN
            last = scene.snapshot.last_cycle
            assert last is not None
            assert last.outcome is CycleOutcome.CHANGED
            assert last.reaction is not None
            assert scene.snapshot.cycles.reactions == 1

    run(main)


def test_apply_is_one_cycle(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            scene.write(OTHER)
            before = len(scene.kernel.transactions)
            outcome = await scene.loop.apply(render_config(OTHER).encode(), Order())
            assert outcome.changed
            assert scene.snapshot.configuration is not None
            assert scene.snapshot.configuration.config == OTHER
            assert scene.cycles == 2
            assert len(scene.kernel.transactions) > before
            observe, looks = scene.kernel.observe, list[int]()

            def look() -> Any:
                looks.append(1)
                return observe()

            scene.kernel.observe = look  # type: ignore[method-assign]
            again = await scene.loop.apply(None, Order())
            assert not again.changed
            assert len(looks) == 1, "the kernel is read once"

    run(main)


def test_apply_tells_problems_with_their_places_and_changes_nothing(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            had = scene.snapshot.configuration
            scene.path.write_text("services: {}\nfrobs: 1\n")
            (problem, *_) = (await scene.loop.apply(None, Order())).problems[-1:]
            assert (problem.line, problem.path) == (2, "frobs")
            assert scene.snapshot.refused is not None
            assert scene.snapshot.configuration is had
            scene.write(CONFIG)
            assert not (await scene.loop.apply(None, Order())).problems
            assert scene.snapshot.refused is None

    run(main)


def test_what_is_deferred_is_tried_again(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            scene.write(OTHER)
            scene.kernel.refuse = "Device or resource busy"
            with pytest.raises(KernelError):
                await scene.loop.apply(None, Order())
            assert not scene.snapshot.deferred, "who asked was told"
            scene.loop.take_file("SIGHUP", "SIGHUP")
            await scene.until(lambda: "busy" in scene.snapshot.deferred)
            scene.kernel.refuse = ""
            await scene.until(lambda: not scene.snapshot.deferred)
            assert scene.snapshot.configuration is not None
            assert scene.snapshot.configuration.config == OTHER

    run(main)


def test_a_vip_that_is_not_taken_is_tried_again(scene: Scene) -> None:
    """By itself, and soon: no event tells that the interface would take it by now."""

    async def main() -> None:
        async with scene.running():
            network = scene.daemon.machine.network
            host, vips = network.host, {held for held in network.host.addresses if held.ours}
            assert vips
            network.refuse.add("eth0")
            network.host = replace(host, addresses=tuple(set(host.addresses) - vips))
            scene.loop.trigger(Trigger.KERNEL)
            await scene.until(lambda: any("cannot add" in p for p in scene.snapshot.problems))
            network.refuse.clear()
            await scene.until(lambda: not scene.snapshot.problems)
            assert {held for held in network.host.addresses if held.ours} == vips

    run(main)


def test_a_failure_is_tried_again_and_told_once(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            scene.kernel.refuse = "Device or resource busy"
            with pytest.raises(KernelError):
                await scene.loop.override(B0, lambda _: Override(disable=True))
            assert scene.snapshot.applied is None
            assert scene.snapshot.overrides == {B0: Override(disable=True)}, "it is on the disk"
            scene.kernel.refuse = ""
            await scene.until(lambda: scene.snapshot.applied is not None)
            assert scene.snapshot.statuses.of[B0].state is State.DISABLED
            kinds = [event.kind for event in scene.daemon.events.events]
            assert kinds.count(EventKind.CYCLE_FAILED) == 1
            assert kinds.count(EventKind.CYCLE_RECOVERED) == 1

    run(main)


def test_a_bug_in_a_cycle_is_a_failed_cycle_and_health_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with scene.running():

            def bug(*_: object, **__: object) -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patched:
                patched.setattr(scene.daemon.reconciler, "cycle", bug)
                scene.loop.trigger(Trigger.DRIFT)
                await scene.until(lambda: scene.snapshot.last_cycle.error)  # type: ignore[union-attr]
            assert "internal error: ZeroDivisionError()" in scene.snapshot.last_cycle.error  # type: ignore[union-attr]
            await scene.until(lambda: not scene.snapshot.last_cycle.error)  # type: ignore[union-attr]

    run(main)


def test_foreign_changes_are_compared_and_own_ones_are_not(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            own = scene.kernel.generation()
            scene.daemon.kernel_events.waiting = Events(generations=(own,))
            scene.loop._hear()
            await asyncio.sleep(0.2)
            assert scene.cycles == 1
            scene.kernel.meddle(None)
            scene.daemon.kernel_events.waiting = Events(generations=(scene.kernel.generation(),))
            scene.loop._hear()
            await scene.until(lambda: scene.cycles > 1)
            assert scene.kernel.table is not None
            assert scene.snapshot.last_cycle is not None
            assert scene.snapshot.last_cycle.outcome is CycleOutcome.REPAIRED

    run(main)


def test_a_foreign_change_elsewhere_is_looked_at_once(scene: Scene) -> None:
    """The revision stays another one than those that the daemon made."""

    async def main() -> None:
        async with scene.running():
            scene.kernel.commits += 1
            for cycles in (2, 2, 2):
                heard = Events(generations=(scene.kernel.generation(),))
                scene.daemon.kernel_events.waiting = heard
                scene.loop._hear()
                await scene.until(lambda cycles=cycles: scene.cycles >= cycles)
                await asyncio.sleep(0.15)
                assert scene.cycles == cycles

    run(main)


def test_what_failed_after_the_change_is_shown_and_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    async def main() -> None:
        async with scene.running():
            balancer = scene.daemon.machine.balancer
            reconcile, left = balancer.reconcile, ["cannot announce 10.0.0.100"]

            def warns(*arguments: Any) -> Any:
                repair = reconcile(*arguments)
                return replace(repair, warnings=(left.pop(),) if left else ())

            monkeypatch.setattr(balancer, "reconcile", warns)
            scene.loop.trigger(Trigger.KERNEL)
            await scene.until(lambda: scene.snapshot.problems)
            assert scene.snapshot.problems == ("cannot announce 10.0.0.100",)
            assert scene.snapshot.last_cycle is not None
            assert not scene.snapshot.last_cycle.error, "the change is made"
            await scene.until(lambda: not scene.snapshot.problems)

    run(main)


def test_a_verdict_does_not_rest_after_a_comparison(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            observe = scene.kernel.observe

            def slowly() -> Any:
                time.sleep(0.3)
                return observe()

            with patch.object(scene.kernel, "observe", slowly):
                scene.loop.trigger(Trigger.DRIFT)
                await scene.until(lambda: scene.cycles == 2 and not scene.loop._turn.locked())
            noted = time.monotonic()
            queue = scene.loop._queue
            queue.note(Trigger.HEALTH, noted)
            due = queue.due()
            assert due is not None
            assert due == noted + GATHER[Trigger.HEALTH]

    run(main)


def test_nobody_can_apply_before_the_first_cycle(scene: Scene) -> None:
    async def main() -> None:
        with pytest.raises(BusyError):
            await scene.loop.apply(None, Order())

    run(main)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("settings", "_look_at_settings"),
        ("file-watch", "_watch_file"),
        ("file-reader", "_read_when_wanted"),
    ],
)
def test_a_side_task_that_fails_is_told_and_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    task, failures = getattr(scene.loop, method), ["one"]

    async def fails_once() -> None:
        if failures:
            failures.clear()
            raise ZeroDivisionError
        await task()

    monkeypatch.setattr(scene.loop, method, fails_once)

    async def main() -> None:
        async with scene.running():
            await scene.until(lambda: scene.supervisor.restarts.get(name))
            told = [e for e in scene.daemon.events.events if e.kind is EventKind.TASK_FAILED]
            assert [event.subject for event in told] == [name]
            scene.write(OTHER)
            scene.loop.take_file("SIGHUP", "SIGHUP")
            await scene.until(lambda: scene.snapshot.configuration.config == OTHER)  # type: ignore[union-attr]

    run(main)


def test_a_busy_writer_is_seen_and_reading_does_not_wait_for_it(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running():
            inside, go_on = threading.Event(), threading.Event()
            observe = scene.kernel.observe

            def slowly() -> Any:
                inside.set()
                go_on.wait(60)
                return observe()

            scene.kernel.observe = slowly  # type: ignore[method-assign]
            assert scene.loop.busy_seconds() == 0.0
            scene.loop.trigger(Trigger.DRIFT)
            await scene.until(inside.is_set)
            assert scene.loop.busy_seconds() > 0.0
            assert scene.snapshot.applied is not None
            go_on.set()
            await scene.until(lambda: scene.cycles == 2)
            assert scene.loop.busy_seconds() == 0.0

    run(main)


def test_findings_are_those_adopted_until_something_is_probed(scene: Scene) -> None:
    checks = Checks(scene.checker)  # type: ignore[arg-type]
    adopted = {B0: Health(False, 1.0)}
    checks.follow(Snapshot(adopted=adopted))
    assert checks.findings() == adopted

    async def main() -> None:
        async with scene.running():
            planned = scene.snapshot.checks
            assert planned is not None
            sets = scene.checker.sets
            checks.follow(Snapshot(adopted=adopted, checks=planned))
            assert scene.checker.adopted == adopted, "they start as down"
            assert checks.findings() == {}
            checks.follow(Snapshot(checks=planned))
            assert scene.checker.sets == sets + 1, "the same plan is no news"

    run(main)


def test_who_hears_of_a_change_finds_the_state_after_it(scene: Scene) -> None:
    """An event is shown when the snapshot that it tells of is there."""
    seen: list[State] = []

    async def main() -> None:
        async with scene.running():
            log = scene.daemon.events._log
            warning = log.warning

            def told(kind: str, **more: Any) -> None:
                if kind == EventKind.BACKEND_DOWN:
                    seen.append(scene.snapshot.statuses.of[B0].state)
                warning(kind, **more)

            with patch.object(log, "warning", told):
                scene.checker.decide(B0, up=False)
                scene.loop.trigger(Trigger.HEALTH)
                await scene.until(lambda: bool(seen))

    run(main)
    assert seen == [State.DOWN]
