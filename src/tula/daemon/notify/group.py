"""Events that become one message: what changed, once each, however often it did. Pure.

Memory is bounded: beyond ``ITEMS`` changes are counted by kind, and no longer named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tula.model.event import Event, EventKind
from tula.model.health import State
from tula.model.severity import BEGINS, ENDS, Severity, severity_of

ITEMS = 5000
"""Changes that one message keeps apart."""

Topic = tuple[EventKind, str]
"""What begins, or happens, and its subject."""


class Status(StrEnum):
    """How a change stands at the end of its events."""

    FIRING = "firing"
    """it lasts"""
    RESOLVED = "resolved"
    """it has ended"""
    HAPPENED = "happened"
    """it is of a kind that has no end"""


def topic_of(event: Event) -> Topic:
    """What begins and what ends it have the same one; so has what is found out about it."""
    kind = ENDS.get(event.kind, event.kind)
    if kind is EventKind.BACKEND_DIAGNOSED:
        kind = EventKind.BACKEND_DOWN
    return kind, event.subject


def is_aside(event: Event) -> bool:
    """Whether it only says more about another event, and is worth no message of its own."""
    return event.kind is EventKind.BACKEND_DIAGNOSED


def is_first(event: Event) -> bool:
    """Whether a backend came up that was not down: its first check passed, which is no news."""
    return event.kind is EventKind.BACKEND_UP and event.message.startswith(f"was {State.UNKNOWN},")


@dataclass(frozen=True, slots=True)
class Item:
    """One change of one subject: its events, of which the first and the last are kept.

    ``began`` and ``ended`` count those that begin and end it. ``since`` is when what lasts, or has
    ended, began, in seconds since the epoch. ``alone``: no other balancer sees it.
    """

    topic: Topic
    first: Event
    last: Event
    since: float
    count: int = 1
    began: int = 0
    ended: int = 0
    evidence: str = ""
    alone: bool = False
    worst: Severity = Severity.INFO

    @property
    def status(self) -> Status:
        """By its last event."""
        if self.topic[0] not in BEGINS:
            return Status.HAPPENED
        return Status.RESOLVED if self.last.kind in ENDS else Status.FIRING

    @property
    def flapped(self) -> bool:
        """Whether it came and went more than once, or both, within the message."""
        return self.began + self.ended > 1


def _item(event: Event, since: float | None, alone: bool) -> Item:
    begins = event.kind in BEGINS
    return Item(
        topic_of(event),
        event,
        event,
        event.time if since is None or begins else since,
        began=int(begins),
        ended=int(event.kind in ENDS),
        evidence=event.evidence,
        alone=alone,
        worst=severity_of(event.kind),
    )


def _joined(old: Item, new: Item) -> Item:
    # What has ended began when that was said, not when it was said to have ended.
    since = old.since if new.status is Status.RESOLVED and not new.began else new.since
    lasts = new.status is Status.FIRING
    return replace(
        new,
        first=old.first,
        since=since,
        count=old.count + new.count,
        began=old.began + new.began,
        ended=old.ended + new.ended,
        evidence=new.evidence or (old.evidence if lasts else ""),
        alone=old.alone and new.alone,
        worst=max(old.worst, new.worst, key=lambda each: each.rank),
    )


@dataclass(slots=True)
class Group:
    """Changes that wait to be told together. ``opened`` is when the first came (monotonic)."""

    opened: float
    items: dict[Topic, Item] = field(default_factory=dict)
    others: Counter[EventKind] = field(default_factory=Counter)
    """what is counted only"""
    events: int = 0
    first_number: int = 0
    """0: none yet"""
    last_number: int = 0
    first_time: float = 0.0
    """of the first event, in seconds since the epoch"""

    def add(self, event: Event, since: float | None = None, *, alone: bool = False) -> None:
        """One more event, later than all before; ``since`` is when what it ends began."""
        topic = topic_of(event)
        old = self.items.get(topic)
        if not self.first_number:
            self.first_number, self.first_time = event.number, event.time
        self.first_number = min(self.first_number, event.number)
        self.first_time = min(self.first_time, event.time)
        self.last_number = max(self.last_number, event.number)
        if is_aside(event):
            if old is not None and old.status is Status.FIRING:
                self.items[topic] = replace(old, evidence=event.evidence or old.evidence)
                self.events += 1
            return
        self.events += 1
        self._put(_item(event, since, alone))

    def take_in(self, later: Group) -> None:
        """Adds what came later: both are told together."""
        self.events += later.events
        self.first_number = min(self.first_number, later.first_number)
        self.first_time = min(self.first_time, later.first_time)
        self.last_number = max(self.last_number, later.last_number)
        self.others.update(later.others)
        for item in later.items.values():
            self._put(item)

    def _put(self, item: Item) -> None:
        old = self.items.get(item.topic)
        if old is not None:
            self.items[item.topic] = _joined(old, item)
        elif len(self.items) < ITEMS:
            self.items[item.topic] = item
        else:
            self.others[item.last.kind] += item.count

    def sorted(self) -> list[Item]:
        """The worst first; what lasts before what has ended."""
        return sorted(self.items.values(), key=_order)

    def kinds(self) -> Iterator[tuple[tuple[EventKind, Status], list[Item]]]:
        """The changes by what they are, in the same order. What came and went is together."""
        found: dict[tuple[EventKind, Status], list[Item]] = {}
        for item in self.sorted():
            found.setdefault((item.topic[0], item.status), []).append(item)
        yield from found.items()


_STATUS = {Status.FIRING: 0, Status.HAPPENED: 1, Status.RESOLVED: 2}


def _order(item: Item) -> tuple[object, ...]:
    now = severity_of(item.last.kind)
    return -now.rank, _STATUS[item.status], str(item.topic[0]), item.topic[1]
