"""What is told of another balancer: once for a change, and only what lasts."""

from __future__ import annotations

from dataclasses import replace

from tula.daemon.peer_state import CLOCKS, LASTS, LOST, Lasting, PeerState, Told
from tula.engine.peer_view import Details, View
from tula.model.event import EventKind

OWN = View(name="lb1", start="a", digest="d", shared_digest="e", details=Details())
VIEW = View(name="lb2", start="b", digest="d", shared_digest="e", time=1000.0, details=Details())


class Scene:
    """A peer and a clock; the clock of the epoch runs 1,000 s ahead."""

    def __init__(self) -> None:
        self.state, self.now = PeerState("lb2", "10.0.0.3"), 0.0

    def answers(self, view: View = VIEW, seconds: float = 1.0, ahead: float = 0.0) -> list[str]:
        """What is told by its next answer."""
        self.now += seconds
        wall = 1000.0 + self.now
        view = replace(view, time=wall + ahead - 0.05)
        told = list(self.state.answered(view, self.now - 0.1, self.now, wall))
        return self.kinds([*told, *self.state.judge(OWN, frozenset(), self.now)])

    def fails(self, seconds: float = 1.0) -> list[str]:
        self.now += seconds
        return self.kinds(list(self.state.failed("refused", self.now, 1000.0 + self.now)))

    @staticmethod
    def kinds(told: list[Told]) -> list[str]:
        return [str(kind) for kind, _ in told]


def test_a_peer_is_lost_and_back_once() -> None:
    scene = Scene()
    assert scene.answers() == [], "nobody missed it"
    assert scene.state.owed, "it may have been away before this daemon was"
    scene.state.owed = False
    assert scene.fails() + scene.fails() == []
    assert scene.state.alive
    assert scene.fails() == ["peer-lost"]
    assert scene.fails() == []
    found = scene.state.facts("lb1")
    assert (found.alive, found.why, found.since, found.digest) == (False, "refused", 1001.0, "d")
    assert scene.answers() == ["peer-back"]
    assert scene.state.owed
    scene.state.owed = False
    assert scene.answers() == []
    assert not scene.state.owed
    assert scene.answers(replace(VIEW, start="c")) == ["peer-back"], "it was never missed, but new"
    assert scene.state.owed


def test_a_peer_that_is_never_heard_is_lost() -> None:
    scene = Scene()
    assert [scene.fails() for _ in range(5)] == [[], [], [], ["peer-lost"], []]
    assert scene.state.facts("lb1").since is not None


def test_an_answer_without_an_end_is_none() -> None:
    scene = Scene()
    scene.answers()
    assert list(scene.state.silent(scene.now + LOST, 0.0)) == []
    told = list(scene.state.silent(scene.now + 3 * LOST, 0.0))
    assert [kind for kind, _ in told] == [EventKind.PEER_LOST]


def test_a_difference_is_told_when_it_lasts_and_when_it_ends() -> None:
    scene = Scene()
    other = replace(VIEW, digest="x", shared_digest="y")
    assert scene.answers() == []
    assert scene.answers(other) == []
    assert scene.state.facts("lb1").configuration_equal is False, "status says it at once"
    assert scene.answers(seconds=LASTS - 1) == [], "an apply on all was under way"
    assert scene.answers(other) == []
    assert scene.answers(other, LASTS) == ["configurations-differ"]
    assert scene.answers(other) == []
    assert scene.answers() == ["configurations-equal"]
    drained = Details(overrides={"web/b1": {"drain": True}}, overrides_digest="o")
    other = replace(VIEW, details=drained, overrides_digest="o")
    assert scene.answers(other) + scene.answers(other, LASTS) == ["overrides-differ"]
    assert scene.fails() + scene.fails() + scene.fails() == ["peer-lost"]
    assert scene.answers(other) == ["peer-back"], "what was told is not told again"
    assert scene.answers() == ["overrides-equal"]


def test_clocks_are_compared_half_way() -> None:
    scene = Scene()
    scene.answers()
    assert scene.state.clock is not None
    assert abs(scene.state.clock) < 0.001
    assert scene.answers(ahead=-CLOCKS - 1) == []
    assert scene.answers(ahead=-CLOCKS - 1, seconds=LASTS) == ["clocks-differ"]
    assert scene.answers() == ["clocks-equal"]


def test_what_is_not_known_changes_nothing() -> None:
    lasting = Lasting(1.0)
    assert [lasting.turned(0.0, None), lasting.turned(5.0, None)] == [None, None]
    assert [lasting.turned(6.0, True), lasting.turned(7.0, True)] == [None, True]
    assert [lasting.turned(8.0, None), lasting.turned(9.0, True)] == [None, None]
    assert [lasting.turned(9.5, False), lasting.turned(9.6, False)] == [False, None]
