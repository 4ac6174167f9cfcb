"""Events that become one message: nothing is lost or doubled, and the text stays short."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tula.daemon.notify.alertmanager import describe_alerts
from tula.daemon.notify.group import ITEMS, Group, Status
from tula.daemon.notify.message import LISTED, Message, make_message
from tula.model.event import Event, EventKind
from tula.model.severity import BEGINS, ENDS, GROUPS, SHARED, severity_of

NOW = 1_800_000_000.0
DOWN, UP = EventKind.BACKEND_DOWN, EventKind.BACKEND_UP


def event(number: int, kind: EventKind, subject: str, evidence: str = "", **more: str) -> Event:
    return Event(number, NOW + number, kind, subject, evidence=evidence, **more)


def group_of(*events: Event) -> Group:
    group = Group(0.0)
    for each in events:
        group.add(each)
    return group


def message_of(group: Group) -> Message:
    return make_message(group, epoch="e", balancer="lb1", receiver="r", now=NOW + 9)


def test_a_switch_that_dies_is_one_message() -> None:
    names = [f"{service}/b{n}" for service in ("web", "api") for n in range(250)]
    made = message_of(group_of(*(event(i, DOWN, n, "refused") for i, n in enumerate(names, 1))))
    assert made.subject == "500 backends down (api: 250, web: 250)"
    assert len(made.text.splitlines()) < 30
    assert "and 480 more" in made.text
    assert [c["count"] for c in made.counts] == [500]
    assert len(made.describe()["changes"]) == 500


def test_one_change_says_why() -> None:
    made = message_of(group_of(event(1, DOWN, "web/b1", "tcp: connection refused")))
    assert made.subject == "backend web/b1 down: tcp: connection refused"
    assert made.text.splitlines() == [
        "backend web/b1 down since 2027-01-15T08:00:01Z: tcp: connection refused",
        "",
        "1 event, told by balancer lb1 at 2027-01-15T08:00:09Z.",
    ]


def test_what_came_and_went_is_told_as_such() -> None:
    made = message_of(group_of(event(1, DOWN, "web/b1"), event(2, UP, "web/b1")))
    assert made.subject == "backend web/b1 up again (flapped: 1 × down, 1 × up)"
    (item,) = made.items
    assert (item.status, item.flapped, item.since) == (Status.RESOLVED, True, NOW + 1)
    assert made.status == "resolved"


def test_what_is_found_out_later_goes_with_it() -> None:
    found = event(2, EventKind.BACKEND_DIAGNOSED, "web/b1", "its filter drops")
    other = event(3, EventKind.BACKEND_DIAGNOSED, "web/b2", "not down here")
    made = message_of(group_of(event(1, DOWN, "web/b1", "timeout"), found, other))
    assert [item.evidence for item in made.items] == ["its filter drops"]


def test_the_worst_is_first() -> None:
    made = message_of(
        group_of(
            event(1, EventKind.DRAINED, "web/b3", by="ann"),
            event(2, DOWN, "web/b1"),
            event(3, EventKind.PEER_LOST, "lb2"),
        )
    )
    assert made.subject == (
        "balancer lb2 does not answer; backend web/b1 down; backend web/b3 drained"
    )
    assert str(made.severity) == "critical"
    assert "(by ann)" in made.text


KINDS = st.sampled_from(list(EventKind))
SUBJECTS = st.sampled_from(["", "web", "web/b1", "web/b2", "lb2", "x\n\x1b[31m"])


@given(st.lists(st.tuples(KINDS, SUBJECTS), min_size=1, max_size=40), st.integers(0, 40))
def test_any_events(events: list[tuple[EventKind, str]], cut: int) -> None:
    made = [event(n, kind, subject, "why") for n, (kind, subject) in enumerate(events, 1)]
    whole, first, later = group_of(*made), group_of(*made[:cut]), group_of(*made[cut:])
    if not made[:cut] or not made[cut:]:
        return
    first.take_in(later)
    asides = any(each.kind is EventKind.BACKEND_DIAGNOSED for each in made)
    if not asides:
        assert first.items == whole.items, "in one go or in two"
        assert first.events == whole.events == len(made)
        assert sum(item.count for item in whole.items.values()) == len(made)
    for item in whole.items.values():
        own = [e for e in made if ENDS.get(e.kind, e.kind) is item.topic[0]]
        own = [e for e in own if e.subject == item.topic[1]]
        assert item.last == own[-1]
        assert item.began == sum(e.kind in BEGINS for e in own)
    found = message_of(whole)
    assert found.subject.isprintable()
    assert len(found.subject) <= 300
    assert all(line.isprintable() for line in found.text.splitlines())
    json.dumps(found.describe())
    if found.items:
        alerts = describe_alerts(found)["alerts"]
        assert len(alerts) == len(found.items)
        json.dumps(alerts)


def test_memory_is_bounded_and_counts_are_not() -> None:
    count = ITEMS + 700
    made = message_of(group_of(*(event(n, DOWN, f"web/b{n}") for n in range(1, count + 1))))
    assert len(made.items) == LISTED
    assert len(made.items) + made.truncated == count
    assert sum(each["count"] for each in made.counts) == count
    assert f"{ITEMS:,} backends down" in made.subject
    assert "700 more of backend-down" in made.subject


def test_every_kind_has_its_place() -> None:
    assert sum(map(len, GROUPS.values())) == len(EventKind), "each in one group"
    assert all(severity_of(ended).rank == 0 for ended in ENDS)
    assert {ENDS[kind] for kind in SHARED & ENDS.keys()} <= SHARED
