"""Who decides what runs: the accepted configuration, the file, confirmation, losses, the way back.

On the fake kernel; ``tests/packets/test_accepting.py`` has the same with commands and packets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from support.builders import FakeMachine, make_backend, make_config, make_service
from support.configurations import render_config
from support.daemon import make_writer
from support.failures import Failures
from support.loop_scene import B0, CONFIG, OTHER, Scene
from tula.config.load import parse_config
from tula.daemon.triggers import Trigger
from tula.daemon.writer import Writer
from tula.engine.control import LossError, NothingToConfirmError, Order
from tula.engine.overrides import override_change
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.config import Config
from tula.model.errors import KernelError, StateError
from tula.model.event import Event, EventKind
from tula.model.health import BackendName, Override

MANY = make_config(
    *(
        make_service(f"s{n}", vips=[f"10.0.0.{100 + n}"], backends=[make_backend(0)])
        for n in range(9)
    )
)
FEW = make_config(*MANY.services[:4])
B1 = ("web", "b1")


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def text(config: Config) -> bytes:
    return render_config(config).encode()


def running(scene: Scene) -> Config:
    assert scene.snapshot.configuration is not None
    return scene.snapshot.configuration.config


def events(scene: Scene, kind: EventKind) -> list[Event]:
    return [event for event in scene.daemon.events.events if event.kind is kind]


def restarted(scene: Scene) -> Scene:
    """A daemon after this one, on the same directory and machine."""
    again = Scene(scene.path.parent, file=None)
    again.daemon.machine.nftables.table = scene.kernel.table
    return again


def test_a_saved_file_is_no_order(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            assert running(scene) == CONFIG, "the first start takes the file"
            scene.write(OTHER)
            await scene.until(lambda: scene.snapshot.file.differs_since)
            scene.path.write_text("services: {}\nfrobs")
            await asyncio.sleep(0.01)
            assert running(scene) == CONFIG
            (told,) = events(scene, EventKind.CONFIGURATION_DIFFERS)
            assert "differs from what runs" in told.message
            scene.write(OTHER)
            outcome = await scene.loop.apply(None, Order("alice", "reload"))
            assert outcome.changed
            assert running(scene) == OTHER
            assert scene.snapshot.file.differs_since is None
            accepted = events(scene, EventKind.CONFIGURATION_ACCEPTED)[-1]
            assert (accepted.by, accepted.evidence) == ("alice", "~ service web: - backend b1")
        scene.write(CONFIG)
        async with (again := restarted(scene)).running():
            assert running(again) == OTHER, "the accepted one, not the file's"
            assert again.snapshot.file.differs_since is not None

    run(main)


def test_content_from_anywhere(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            await scene.loop.apply(text(OTHER), Order("alice"))
            assert running(scene) == OTHER
            assert scene.snapshot.file.differs_since is not None, "the file holds the old one"
            outcome = await scene.loop.apply(b"frobs: 1", Order("alice"))
            assert outcome.problems
            assert scene.snapshot.refused is None, "that was not the file"
            (told,) = events(scene, EventKind.CONFIGURATION_REFUSED)
            assert told.by == "alice"
            scene.kernel.refuse = "busy"
            with pytest.raises(KernelError):
                await scene.loop.apply(text(CONFIG), Order("alice"))
            scene.kernel.refuse = ""
            assert not scene.snapshot.deferred

    run(main)


def test_a_file_that_is_followed(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path, follow_file=True)
        async with scene.running():
            scene.write(OTHER)
            await scene.until(lambda: running(scene) == OTHER)
        scene.write(CONFIG)
        async with (again := Scene(tmp_path, follow_file=True)).running():
            assert running(again) == CONFIG, "at its start too"

    run(main)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            scene.path.unlink()
            await scene.until(lambda: scene.snapshot.refused)
            (told,) = events(scene, EventKind.CONFIGURATION_REFUSED)
            assert told.message == f"{scene.path}: no such file"
            scene.write(CONFIG)
            await scene.until(lambda: scene.snapshot.refused is None)
        scene.path.unlink()
        async with (again := restarted(scene)).running():
            assert running(again) == CONFIG
            assert again.snapshot.refused is not None

    run(main)


def test_sighup_takes_the_file_but_no_half_of_one(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        scene.write(MANY)
        async with scene.running():
            scene.write(FEW)
            scene.loop.take_file("SIGHUP", "SIGHUP")
            await scene.until(lambda: scene.snapshot.refused)
            assert scene.snapshot.refused is not None
            (problem,) = scene.snapshot.refused.problems
            assert problem.message == (
                "this takes away 5 of 9 services: s4, s5, s6, s7 and s8; "
                "if that is meant: tula reload --yes"
            )
            with pytest.raises(LossError):
                await scene.loop.apply(None, Order())
            assert running(scene) == MANY
            await scene.loop.apply(None, Order(yes=True))
            assert running(scene) == FEW
            scene.write(MANY)
            scene.loop.take_file("SIGHUP", "SIGHUP")
            await scene.until(lambda: running(scene) == MANY)
            assert events(scene, EventKind.CONFIGURATION_ACCEPTED)[-1].by == "SIGHUP"

    run(main)


def test_the_last_that_serves(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():

            async def override(name: BackendName, verb: str, yes: bool, **rest: Any) -> None:
                change = override_change(verb, boot_time(), **rest)
                await scene.loop.override(name, change, by="bob", yes=yes)

            await override(B0, "drain", False)
            (told,) = events(scene, EventKind.DRAINED)
            assert (told.subject, told.by) == ("web/b0", "bob")
            for verb, rest in (("drain", {}), ("disable", {}), ("weight", {"weight": 0})):
                with pytest.raises(LossError, match="leaves service web without a backend"):
                    await override(B1, verb, False, **rest)
            assert B1 not in scene.snapshot.overrides
            with pytest.raises(LossError):
                await scene.loop.apply(text(OTHER), Order())  # without b1, and b0 is drained
            await override(B1, "disable", True)
            await override(B0, "disable", False)  # it serves nothing new as it is

    run(main)


def test_confirmed_in_time(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            await scene.loop.apply(text(OTHER), Order("alice", confirm=60))
            assert running(scene) == OTHER
            assert scene.snapshot.tentative is not None
            assert scene.daemon.store.configuration() == text(CONFIG), "not accepted yet"
            await scene.loop.confirm("alice")
            assert scene.daemon.store.configuration() == text(OTHER)
            assert scene.daemon.store.history()[-1].by == "alice"
            with pytest.raises(NothingToConfirmError):
                await scene.loop.confirm("alice")

    run(main)


def test_not_confirmed(tmp_path: Path) -> None:
    now = [1000.0]

    async def main() -> None:
        scene = Scene(tmp_path, clock=lambda: now[0])
        async with scene.running():
            table = scene.kernel.table
            await scene.loop.override(B1, lambda _: Override(weight=7))
            await scene.loop.apply(text(OTHER), Order(confirm=60))
            await scene.loop.apply(text(MANY), Order(confirm=60, yes=True))
            now[0] += 61
            scene.kernel.refuse = "busy"
            scene.loop.trigger(Trigger.TIME)
            await scene.until(lambda: running(scene) == CONFIG)
            scene.kernel.refuse = ""
            await scene.until(lambda: scene.snapshot.applied)
            assert scene.snapshot.tentative is None
            assert scene.snapshot.overrides == {B1: Override(weight=7)}
            assert scene.kernel.table is not table
            (told,) = events(scene, EventKind.CONFIGURATION_REVERTED)
            assert "not confirmed in time" in told.message

    run(main)


@pytest.mark.parametrize("confirmed", [False, True])
def test_the_daemon_ends_meanwhile(tmp_path: Path, confirmed: bool) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            await scene.loop.apply(text(OTHER), Order(confirm=60))
            if confirmed:
                await scene.loop.confirm("")
        async with (again := restarted(scene)).running():
            assert running(again) == (OTHER if confirmed else CONFIG)
            assert again.snapshot.tentative is None
            told = events(again, EventKind.CONFIGURATION_REVERTED)
            assert [e.message for e in told] == (
                []
                if confirmed
                else ["the one before runs again: the daemon ended before it was confirmed"]
            )

    run(main)


def test_a_disk_that_is_full_when_it_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            await scene.loop.apply(text(OTHER), Order(confirm=60))

            def full(*_: object, **__: object) -> Any:
                raise StateError("No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(scene.daemon.store, "prepare_configuration", full)
                with pytest.raises(StateError):
                    await scene.loop.confirm("")
            assert scene.snapshot.tentative is not None, "it still waits"
            await scene.loop.go_back("alice")
            assert running(scene) == CONFIG

    run(main)


def test_an_order_ends_the_waiting(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        async with scene.running():
            await scene.loop.apply(text(OTHER), Order(confirm=60))
            outcome = await scene.loop.apply(text(OTHER), Order())
            assert "waited for confirmation" in outcome.warnings[0].message
            assert scene.snapshot.tentative is None
            assert scene.daemon.store.configuration() == text(OTHER)

    run(main)


class Killed(BaseException):
    """kill -9: nothing that catches an Exception sees it."""


class Steps(Failures):
    """Kills at the ``due``-th step: a call of the kernel, or one that reaches the disk."""

    def meet(self, call: str) -> None:
        if self.due is not None:
            self.due -= 1
            if self.due < 0:
                self.due = None
                self.failed.append(call)
                raise Killed(call)

    def wrap_disk(self, store: Store) -> None:
        files = store._files
        prepare, rename = files.prepare, files.rename

        def prepared(name: str, content: bytes, mode: int = 0o644) -> Callable[[], None]:
            self.meet(f"prepare {name}")
            return prepare(name, content, mode)

        def renamed(old: str, new: str) -> None:
            self.meet(f"rename {new}")
            rename(old, new)
            self.meet(f"renamed {new}")

        files.prepare = prepared  # type: ignore[method-assign]
        files.rename = renamed  # type: ignore[method-assign]


def live(
    directory: Path, machine: FakeMachine, due: int, confirmed: bool
) -> tuple[str, Writer | None]:
    """A daemon that is given a configuration to be confirmed, and killed at a step of it, or of
    the confirmation; the step's name, empty if there are no more."""
    steps, store = Steps(), Store(directory)
    steps.wrap_disk(store)
    writer = make_writer(steps.wrap(machine), store, lambda: 1000.0)
    assert not writer.cycle({}).error
    order = Order("alice", confirm=60)
    try:
        if not confirmed:
            steps.due = due
        writer.apply(parse_config(text(OTHER)), {}, order)
        if confirmed:
            steps.due = due
            writer.confirm("alice")
    except Killed as killed:
        return str(killed), None
    return "", writer


@pytest.mark.parametrize("confirmed", [False, True])
def test_killed_at_every_step(tmp_path: Path, confirmed: bool) -> None:
    """What runs after that is the confirmed configuration, in the kernel too."""
    seen, ran = [], set()
    for due in range(1000):
        directory = tmp_path / str(due)
        machine = FakeMachine(directory, CONFIG)
        first = make_writer(machine.adapters, Store(directory), lambda: 1000.0)
        first.apply(parse_config(text(CONFIG)), {}, Order("", "at start"))
        before = machine.nftables.table
        step, writer = live(directory, machine, due, confirmed)
        if writer is not None:
            break
        seen.append(step)
        accepted = Store(directory).configuration()
        again = make_writer(machine.adapters, Store(directory), lambda: 1000.0)
        assert not again.cycle({}).error
        assert again.snapshot.configuration is not None
        ran.add(runs := again.snapshot.configuration.source.encode())
        assert runs == accepted, step
        if not confirmed:
            assert runs == text(CONFIG), step
            assert machine.nftables.table is not None
            assert before is not None
            assert machine.nftables.table.maps == before.maps, step
        numbers = [entry.number for entry in Store(directory).history()]
        assert numbers == list(range(1, len(numbers) + 1)), "the history is whole"
        assert Store(directory).past_configuration(numbers[-1]) == runs
    assert len(seen) > 5
    assert ran == ({text(CONFIG), text(OTHER)} if confirmed else {text(CONFIG)})
    print(len(seen), "steps:", *seen)


def test_an_accepted_configuration_of_another_version(tmp_path: Path) -> None:
    """The newest one before it that this version reads runs, and that is told."""

    async def main() -> None:
        scene = Scene(tmp_path)
        store = scene.daemon.store
        for source in (text(CONFIG), text(OTHER), b"interfaces: [eth0]\nfrobs: 1\n"):
            store.prepare_configuration(source)()
        async with scene.running():
            assert running(scene) == OTHER
            (problem,) = scene.snapshot.problems
            assert problem.startswith("number 2 of the history runs instead; ")
            assert "frobs: unknown key" in problem
            assert [e.message for e in events(scene, EventKind.CONFIGURATION_REFUSED)] == [problem]
            await scene.loop.apply(text(CONFIG), Order())
            assert scene.snapshot.problems == ()

    run(main)
