"""When a receiver is told what: filters, windows, retries, and what two balancers make of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tula.daemon.notify.dedup import Other
from tula.daemon.notify.group import Item
from tula.daemon.notify.memory import Kept
from tula.daemon.notify.pipeline import FAILING, GIVE_UP, REFUSALS, Outcome, Pipeline
from tula.engine.peer_view import Notified, Told, parse_notified
from tula.model.event import Event, EventKind
from tula.model.notifying import Receiver
from tula.model.severity import Severity

DOWN, UP = EventKind.BACKEND_DOWN, EventKind.BACKEND_UP
EXEC = Receiver(exec=("/bin/true",))
FAILED = Outcome("nobody listens there")


def event(number: int, kind: EventKind = DOWN, subject: str = "web/b1", time: float = 0.0) -> Event:
    return Event(number, time or 1000.0 + number, kind, subject)


def review(pipeline: Pipeline, now: float, own: str = "lb1", *others: Other) -> None:
    pipeline.review(own, others, now, lambda _: 6.0)


def offered(pipeline: Pipeline, *events: Event, now: float = 0.0) -> Pipeline:
    for each in events:
        pipeline.offer(each, now)
    review(pipeline, now)
    return pipeline


def test_windows() -> None:
    pipeline = offered(Pipeline("x", EXEC), event(1))
    assert pipeline.due() == 2.0
    offered(pipeline, event(2, subject="web/b2"), now=1.0)
    assert pipeline.due() == 2.0
    assert len(pipeline.take().items) == 2
    offered(pipeline, event(3, UP), now=2.5)
    assert pipeline.due() is None, "one at a time"
    pipeline.ended(Outcome(), 3.0, 1003.0)
    assert pipeline.due() == 33.0
    assert (pipeline.position, pipeline.facts.sent, pipeline.facts.events) == (2, 1, 2)


def test_what_fails_is_tried_again_with_what_came_meanwhile() -> None:
    pipeline, now, tries = offered(Pipeline("x", EXEC), event(1)), 2.0, []
    told = None
    while (due := pipeline.due()) is not None and len(tries) < 12:
        now = due
        tries.append(now)
        pipeline.take()
        offered(pipeline, event(len(tries) + 1, subject=f"web/b{len(tries) + 1}"), now=now)
        told = pipeline.ended(FAILED, now, 1000.0 + now) or told
    waits = [b - a for a, b in pairwise(tries)]
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert told is EventKind.NOTIFY_FAILED
    assert pipeline.facts.failing_since == 1002.0
    assert pipeline.position == 0
    group = pipeline.take()
    assert (group.events, len(group.items)) == (13, 13)
    assert pipeline.ended(Outcome(), now, 2000.0) is EventKind.NOTIFY_RECOVERED
    assert (pipeline.position, pipeline.facts.error) == (13, "")


def test_it_is_given_up_in_the_end() -> None:
    pipeline = offered(Pipeline("x", EXEC), event(1))
    now = 2.0
    for _ in range(1000):
        due = pipeline.due()
        if due is None:
            break
        now = due
        pipeline.take()
        pipeline.ended(FAILED, now, 1000.0 + now)
    assert GIVE_UP < now < GIVE_UP + 120
    assert (pipeline.missed, pipeline.current().given_up, pipeline.position) == (1, 1, 1)
    refused = offered(Pipeline("x", EXEC), event(1))
    for _ in range(REFUSALS):
        refused.take()
        refused.ended(replace(FAILED, refused=True), 5.0, 1005.0)
    assert (refused.due(), refused.missed) == (None, 1)
    assert FAILING > 60


@pytest.mark.parametrize(
    ("receiver", "wanted"),
    [
        ({}, {DOWN, UP, EventKind.DRAINED, EventKind.PEER_LOST, EventKind.DAEMON_STARTED}),
        ({"events": ("backend-down",)}, {DOWN}),
        ({"events": ("backends", "peer-lost")}, {DOWN, UP, EventKind.PEER_LOST}),
        ({"severity": Severity.WARNING}, {DOWN, UP, EventKind.PEER_LOST}),
        ({"severity": Severity.CRITICAL}, {EventKind.PEER_LOST}),
        ({"services": ("web",)}, {DOWN, UP, EventKind.DRAINED}),
        ({"services": ("api",)}, set()),
    ],
)
def test_filters(receiver: dict[str, object], wanted: set[EventKind]) -> None:
    made = Pipeline("x", replace(EXEC, **receiver))
    kinds = (DOWN, UP, EventKind.DRAINED, EventKind.PEER_LOST, EventKind.DAEMON_STARTED)
    subject = {EventKind.PEER_LOST: "lb2", EventKind.DAEMON_STARTED: ""}
    found = {k for k in kinds if made.wants(event(1, k, subject.get(k, "web/b1")))}
    assert found == wanted


def test_nobody_is_told_of_its_own_failures() -> None:
    made = Pipeline("webhook a", EXEC)
    assert not made.wants(event(1, EventKind.NOTIFY_FAILED, "webhook a"))
    assert made.wants(event(1, EventKind.NOTIFY_FAILED, "webhook b"))


def test_a_first_pass_is_no_news() -> None:
    made = Pipeline("x", EXEC)
    first = replace(event(1, UP), message="was unknown, is up")
    assert not made.wants(first)
    assert made.wants(replace(first, message="was down, is up"))


# Two balancers

LOOKS = 0.5
TOLERANCE = 6.0


@dataclass
class Node:
    """A balancer: its log, which survives, and its pipeline, which does not."""

    name: str
    alive: bool = True
    log: list[Event] = field(default_factory=list)
    pipeline: Pipeline = field(default_factory=lambda: Pipeline("x", EXEC))
    kept: Kept = field(default_factory=Kept)
    coming: list[tuple[float, EventKind, str]] = field(default_factory=list)
    views: dict[str, Notified] = field(default_factory=dict)
    """what it heard of the others"""
    heard: dict[str, float] = field(default_factory=dict)

    def see(self, now: float) -> None:
        due = [each for each in self.coming if each[0] <= now]
        self.coming = [each for each in self.coming if each[0] > now]
        for at, kind, subject in due if self.alive else ():
            made = Event(len(self.log) + 1, at, kind, subject)
            self.log.append(made)
            self.pipeline.offer(made, now)

    def said(self, now: float) -> Notified:
        at = self.pipeline.unsettled
        settled = now - 1.0 if at is None else min(now - 1.0, at - 0.001)
        return Notified(
            {EXEC.identity: Told(settled, dict(self.pipeline.sent))}, str(self.pipeline.revision)
        )

    def restart(self, now: float) -> None:
        self.alive, self.views, self.heard = True, {}, {}
        self.pipeline = Pipeline("x", EXEC)
        self.pipeline.resume(self.kept, self.kept.cursor)
        for each in self.log:
            self.pipeline.offer(each, now)


@dataclass
class World:
    nodes: list[Node]
    now: float = 1000.0
    told: list[tuple[str, Item]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    began: dict[str, float] = field(default_factory=dict)

    def others(self, node: Node) -> list[Other]:
        found = []
        for each in self.nodes:
            if each is node:
                continue
            began = self.began.setdefault(node.name, self.now)
            heard = node.heard.get(each.name)
            lost = self.now - (began if heard is None else heard) > 3.0
            view = node.views.get(each.name)
            found.append(
                Other(
                    each.name,
                    known=heard is not None or lost,
                    alive=heard is not None and not lost,
                    told={} if view is None else view.receivers,
                )
            )
        return found

    def step(self, lost: set[str], failing: set[str], unsure: set[str]) -> None:
        self.now += LOOKS
        for node in self.nodes:
            node.see(self.now)
        for node in (n for n in self.nodes if n.alive):
            for each in self.nodes:
                if each is not node and each.alive and not {node.name, each.name} & lost:
                    before = node.views.get(each.name)
                    known = "" if before is None else before.digest
                    view = parse_notified(each.said(self.now).describe(known), before)
                    node.views[each.name], node.heard[each.name] = view, self.now
            pipeline = node.pipeline
            pipeline.review(node.name, self.others(node), self.now, lambda _: TOLERANCE)
            due = pipeline.due()
            if due is not None and due <= self.now:
                group = pipeline.take()
                arrives = node.name not in failing
                if arrives:
                    self.messages.append(node.name)
                    self.told += [(node.name, item) for item in group.items.values()]
                sure = arrives and node.name not in unsure
                pipeline.ended(Outcome() if sure else FAILED, self.now, self.now)
            stored = pipeline.stored()
            node.kept = Kept(stored["cursor"], dict(stored["sent"]))

    def calm(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOKS)):
            self.step(set(), set(), set())

    def check(self) -> None:
        """Whatever a balancer saw was told, by anybody, with how it ended."""
        for node in self.nodes:
            for each in node.log:
                covered = [
                    item
                    for _, item in self.told
                    if item.topic[1] == each.subject
                    and item.first.time - TOLERANCE <= each.time <= item.last.time + TOLERANCE
                ]
                assert covered, f"{each} of {node.name} was told by nobody"
        for subject in {each.subject for node in self.nodes for each in node.log}:
            finals = {
                [e for e in node.log if e.subject == subject][-1].kind
                for node in self.nodes
                if any(e.subject == subject for e in node.log)
            }
            last = [item.last for _, item in self.told if item.topic[1] == subject][-1]
            assert last.kind in finals


def pair(*names: str) -> World:
    return World([Node(name) for name in names or ("lb1", "lb2")])


def happens(world: World, kind: EventKind, subject: str, *lags: float) -> None:
    for node, lag in zip(world.nodes, lags, strict=True):
        node.coming.append((world.now + lag, kind, subject))


def test_one_of_two_tells() -> None:
    world = pair()
    for number in range(50):
        happens(world, DOWN, f"web/b{number}", 0.1, 1.9)
    world.calm(60)
    assert world.messages == ["lb1"]
    happens(world, UP, "web/b3", 3.0, 0.0)
    world.calm(60)
    assert world.messages == ["lb1", "lb1"]
    world.check()


def test_far_apart_with_nothing_between_is_the_same() -> None:
    world = pair()
    happens(world, DOWN, "web/b1", 0.0, 40.0)
    world.calm(120)
    assert world.messages == ["lb1"]


def test_what_one_alone_sees_it_tells() -> None:
    world = pair()
    world.nodes[1].coming.append((world.now, DOWN, "web/b1"))
    world.calm(60)
    assert world.messages == ["lb2"]
    assert world.told[0][1].alone


def test_who_tells_dies_before_it_has() -> None:
    world = pair()
    happens(world, DOWN, "web/b1", 0.0, 0.5)
    world.calm(1.0)
    world.nodes[0].alive = False
    world.calm(30)
    assert world.messages == ["lb2"]
    world.nodes[0].restart(world.now)
    world.began.clear()
    world.calm(60)
    assert world.messages == ["lb2"], "it learns that it was told"
    world.check()


def test_what_came_and_went_since_is_told_when_who_tells_dies() -> None:
    world = pair()
    happens(world, DOWN, "web/b1", 0.0, 0.5)
    world.calm(8)
    assert world.messages == ["lb1"]
    for kind in (UP, DOWN):
        happens(world, kind, "web/b1", 0.0, 0.5)
        world.calm(8)
    assert world.messages == ["lb1"], "not yet again"
    world.nodes[0].alive = False
    world.calm(60)
    assert world.messages == ["lb1", "lb2"]
    assert [item.last.kind for _, item in world.told] == [DOWN, DOWN]
    assert world.told[1][1].flapped


def test_what_the_dead_one_told_is_not_what_happens_now() -> None:
    world = pair()
    for kind in (DOWN, UP):
        happens(world, kind, "web/b1", 0.0, 0.5)
        world.calm(40)
    world.nodes[0].alive = False
    for kind in (DOWN, UP):
        happens(world, kind, "web/b1", 0.0, 0.5)
        world.calm(40)
    assert world.messages == ["lb1", "lb1", "lb2", "lb2"]
    world.check()


def test_who_tells_cannot() -> None:
    world = pair()
    happens(world, DOWN, "web/b1", 0.0, 0.5)
    for _ in range(300):
        world.step(set(), {"lb1"}, set())
    assert world.messages == ["lb2"]
    world.check()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["down", "up", "down", "up", "kill", "start", "lose", "fail", "unsure"]),
        st.integers(0, 1),
        st.floats(0, 3),
        st.floats(0, 3),
        st.integers(1, 40),
    ),
    max_size=25,
)


@settings(max_examples=2000 if os.environ.get("TULA_SOAK") else 60, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_nothing_is_lost(steps: list[tuple[str, int, float, float, int]], count: int) -> None:
    world = pair(*[f"lb{n}" for n in range(1, count + 1)])
    state: dict[str, EventKind] = {}
    for word, which, first, second, wait in steps:
        subject, node = f"web/b{which}", world.nodes[which % count]
        kind = DOWN if word == "down" else UP
        lost, failing, unsure = set(), set(), set()
        if word in ("down", "up") and state.get(subject, UP) is not kind:
            state[subject] = kind
            happens(world, kind, subject, *([first, second, first / 2][:count]))
            wait = max(wait, 15)  # no check is faster
        elif word == "kill":
            node.alive = False
        elif word == "start" and not node.alive:
            node.restart(world.now)
            world.began[node.name] = world.now
        elif word in ("lose", "fail", "unsure"):
            {"lose": lost, "fail": failing, "unsure": unsure}[word].add(node.name)
        for _ in range(wait):
            world.step(lost, failing, unsure)
    for node in world.nodes:
        if not node.alive:
            node.restart(world.now)
            world.began[node.name] = world.now
    world.calm(200)
    for node in world.nodes:
        assert node.pipeline.due() is None
        assert not node.pipeline.waits
    world.check()
