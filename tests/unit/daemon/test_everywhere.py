"""This daemon as one of several balancers, with others that answer as a test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.api_daemon import ControlScene, run
from support.configurations import render_config
from support.daemon import CONFIG
from tula.daemon.everywhere.assemble import make_everywhere
from tula.daemon.everywhere.service import Everywhere
from tula.engine.control import RefusedError
from tula.engine.everywhere import (
    Asked,
    Change,
    JointError,
    Members,
    Prepared,
    Result,
    Trouble,
    trouble,
)
from tula.engine.history import digest_of
from tula.engine.peers import Peer, PeerStore
from tula.kernel.clock import boot_time
from tula.plan.everywhere import Standing

ONE = render_config(CONFIG)
TWO = ONE.replace("load_balancers: {}", "load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3}")
NEW = f"{TWO}# new\n"
CHANGE = Change("0123456789abcdef", "lb2", "ann@lb2", "apply everywhere")


class Other:
    """Another balancer: what it was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.knows = Standing.SILENT
        self.wrong: dict[str, Exception] = {}

    def _do(self, what: str) -> None:
        self.asked.append(what)
        if what in self.wrong:
            raise self.wrong[what]

    async def prepare(self, *_: Any, dry: bool) -> Prepared:
        self._do("ask" if dry else "prepare")
        return Prepared("old")

    async def hold(self, *_: Any) -> str:
        self._do("hold")
        return "old"

    async def confirm(self, *_: Any) -> None:
        self._do("confirm")

    async def adopt(self, *_: Any) -> None:
        self._do("adopt")

    async def abort(self, *_: Any) -> None:
        self._do("abort")

    async def standing(self, _: str) -> Standing:
        self._do("standing")
        if self.knows is Standing.SILENT:
            raise trouble(Trouble.UNREACHABLE, "no answer")
        return self.knows


def make(directory: Path, text: str = TWO) -> tuple[ControlScene, Everywhere, Other]:
    scene, other = ControlScene(directory, text, boot_time), Other()
    everywhere = make_everywhere(
        *(scene.control, scene.loop, scene.daemon.writer, scene.daemon.store),
        *(scene.daemon.events, scene.watch, lambda _: "lb1"),
    )
    members = everywhere._members

    async def with_other(order: Any, **_: Any) -> Members:
        found = await members(order, all_known=False)
        return Members(found.own, {**found.of, "lb2": other})  # type: ignore[dict-item]

    if text == TWO:
        everywhere._members = with_other  # type: ignore[method-assign, assignment]
    return scene, everywhere, other


@pytest.mark.parametrize(
    ("knows", "ends"),
    [
        (Standing.CONFIRMED, NEW),
        (Standing.ABORTED, TWO),
        (Standing.UNKNOWN, TWO),
        (Standing.OPEN, None),
        (Standing.SILENT, None),
    ],
)
def test_in_doubt(tmp_path: Path, knows: Standing, ends: str | None) -> None:
    """Whose time is over does what the coordinator decided, as soon as anybody says so."""
    scene, everywhere, other = make(tmp_path)
    other.knows = knows

    async def main() -> None:
        async with scene.running():
            before = digest_of(TWO.encode())
            await everywhere.prepare(CHANGE, NEW.encode(), before, 1.0, dry=False)
            assert scene.running_text == NEW
            await everywhere._resolve()
            assert other.asked == [], "there is time left"
            joint = scene.loop.snapshot.tentative
            assert joint is not None
            everywhere.participant.in_doubt = lambda: joint.joint  # type: ignore[method-assign]
            await everywhere._resolve()
            waits = scene.loop.snapshot.tentative is not None
            assert waits == (ends is None)
            assert scene.running_text == (ends or NEW)
            told = [event.kind for event in scene.daemon.events.events]
            assert ("everywhere-in-doubt" in told) == (ends is None)
            assert bool(everywhere.problems()) == (ends is None)

    run(main)


def test_another_configuration_that_was_accepted_meanwhile_stays(tmp_path: Path) -> None:
    scene, everywhere, other = make(tmp_path)
    other.wrong = {
        "confirm": trouble(Trouble.LOST, "nothing waits"),
        "adopt": trouble(Trouble.ANOTHER, "another configuration runs there"),
    }

    async def main() -> None:
        async with scene.running():
            done = await everywhere.apply(NEW.encode(), Asked("ann"))
            assert [told.result for told in done.machines] == [Result.DONE, Result.LEFT]
            assert not done.done
            assert not everywhere.problems(), "nothing is left to be done"

    run(main)


def test_it_is_driven_on(tmp_path: Path) -> None:
    scene, everywhere, other = make(tmp_path)
    other.wrong = {"confirm": trouble(Trouble.UNREACHABLE, "no answer")}

    async def main() -> None:
        async with scene.running():
            done = await everywhere.apply(NEW.encode(), Asked("ann"))
            assert [told.result for told in done.machines] == [Result.DONE, Result.PENDING]
            (problem,) = everywhere.problems()
            assert problem.startswith("lb2 has not confirmed configuration")
            other.wrong = {"confirm": trouble(Trouble.LOST, "nothing waits")}
            await everywhere._drive_on()
            assert other.asked[-2:] == ["confirm", "adopt"]
            assert not everywhere.problems()
            assert await everywhere.standing(done.change) is Standing.CONFIRMED

    run(main)


def test_what_one_refuses_is_taken_back(tmp_path: Path) -> None:
    scene, everywhere, other = make(tmp_path)

    async def main() -> None:
        async with scene.running():
            for kind in (Trouble.CONFIGURATION, Trouble.UNREACHABLE, Trouble.ANOTHER):
                other.wrong, other.asked = {"prepare": trouble(kind, "no")}, []
                with pytest.raises(JointError) as caught:
                    await everywhere.apply(NEW.encode(), Asked("ann"))
                assert caught.value.trouble is kind
                results = {told.machine: told.result for told in caught.value.machines}
                assert results["lb1"] is Result.TAKEN_BACK
                assert ("abort" in other.asked) == (kind is Trouble.UNREACHABLE)
                assert scene.running_text == TWO
                assert scene.loop.snapshot.tentative is None

    run(main)


def test_without_other_balancers_it_names_the_fix(tmp_path: Path) -> None:
    scene, everywhere, _ = make(tmp_path, ONE)

    async def main() -> None:
        async with scene.running():
            with pytest.raises(RefusedError, match="load_balancers, such as"):
                await everywhere.apply(NEW.encode(), Asked("ann"))

    run(main)


def test_without_tokens_it_names_the_fix(tmp_path: Path) -> None:
    three = TWO.replace("lb2: 10.0.0.3", "lb2: 10.0.0.3, lb3: 10.0.0.4")
    scene, everywhere, _ = make(tmp_path, three)
    token = "tula_" + "A" * 43
    peer = Peer("lb2", "https://10.0.0.3:8420", "a" * 64, token)
    PeerStore(scene.daemon.store.directory).put(peer)

    async def main() -> None:
        async with scene.running():
            with pytest.raises(RefusedError, match="tula peer add lb3") as caught:
                await everywhere.apply(NEW.encode(), Asked("ann"))
            assert len(caught.value.lines) == 1

    run(main)


def test_what_comes_only_from_a_machine_does_not_come_from_a_peer(tmp_path: Path) -> None:
    """The machine's file may say source: file: a peer has asked its own user."""
    scene, everywhere, _ = make(tmp_path)
    listens = TWO.replace("api:\n", 'api:\n  listen: ["0.0.0.0:8420"]\n')
    assert listens != TWO

    async def main() -> None:
        async with scene.running():
            before = digest_of(TWO.encode())
            with pytest.raises(Exception, match="only from this machine's file"):
                await everywhere.prepare(CHANGE, listens.encode(), before, 60, dry=True)
            scene.path.write_text(listens)
            await everywhere.prepare(CHANGE, listens.encode(), before, 60, dry=False)
            assert scene.running_text == listens

    run(main)
