"""What one receiver has still to be told, and when. Pure: times are arguments.

``now`` is monotonic, ``wall`` in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tula.daemon.notify.dedup import Moment, Other, Verdict, judge, mark_of
from tula.daemon.notify.group import Group, Topic, is_aside, is_first, topic_of
from tula.daemon.notify.memory import Kept
from tula.engine.notify_facts import ReceiverFacts
from tula.model.event import Event, EventKind
from tula.model.notifying import Receiver
from tula.model.severity import ENDS, GROUPS, OF_SERVICES, SHARED, severity_of

GIVE_UP = 3600.0
"""Seconds after which events that nobody takes are given up."""
REFUSALS = 5
"""Tries after which a message is given up that the receiver will not have."""
HELD = 10_000
"""Events that wait for another balancer; more are told by this one."""
SENT = 4000
"""Kinds and subjects that are remembered as told."""
FAILING = 300.0
"""Seconds of failures after which that is an event of its own."""
_LONGEST_WAIT = 60.0
"""Seconds between two tries at most, unless the receiver asks for more."""
_OWN = frozenset({EventKind.NOTIFY_FAILED, EventKind.NOTIFY_RECOVERED})


@dataclass(frozen=True, slots=True)
class Held:
    """An event that waits for a verdict, and since when (monotonic)."""

    event: Event
    heard: float
    since: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended; ``error`` is empty if the message was taken. ``refused``: trying again will
    hardly help. ``wait``: what the receiver asked for, in seconds."""

    error: str = ""
    refused: bool = False
    wait: float = 0.0


@dataclass(slots=True)
class Pipeline:
    """One receiver; it hears of events after number ``cursor``."""

    name: str
    receiver: Receiver
    cursor: int = 0
    facts: ReceiverFacts = field(default_factory=lambda: ReceiverFacts("", ""))
    sent: dict[str, float] = field(default_factory=dict)
    missed: int = 0
    """events that were given up since the last message"""
    failing_told: bool = False
    revision: int = 0
    """of ``sent``"""
    _pending: Group | None = None
    _flying: Group | None = None
    _held: dict[Topic, list[Held]] = field(default_factory=dict)
    _seen: int = 0
    _count_held: int = 0
    _last_message: float | None = None
    _next_try: float = 0.0
    _tries: int = 0
    _refusals: int = 0

    def __post_init__(self) -> None:
        self.facts = replace(self.facts, name=self.name, kind=self.receiver.kind)
        self._seen = self.cursor

    def resume(self, kept: Kept, cursor: int) -> None:
        """Goes on where the last daemon ended, after event ``cursor``."""
        self.cursor = self._seen = cursor
        self.sent, self.missed = dict(kept.sent), kept.missed
        self.failing_told, self.revision = kept.failing_told, 1
        self.facts = replace(self.facts, failing_since=kept.failing_since)

    def rename(self, name: str, receiver: Receiver) -> None:
        """It is called so from now on, and has these settings: the identity is the same."""
        self.name, self.receiver = name, receiver
        self.facts = replace(self.facts, name=name)

    # What comes in

    def wants(self, event: Event) -> bool:
        """Whether its filters let the event pass."""
        receiver, kind = self.receiver, event.kind
        if kind in _OWN and event.subject == self.name:
            return False  # that would never end
        if is_first(event):
            return False
        as_kind = EventKind.BACKEND_DOWN if is_aside(event) else kind
        words = receiver.events
        if words and not any(w == as_kind or as_kind in GROUPS.get(w, ()) for w in words):
            return False
        # What ends something is as interesting as that.
        severity = severity_of(ENDS.get(as_kind, as_kind))
        if severity.rank < receiver.severity.rank:
            return False
        if not receiver.services:
            return True
        return kind in OF_SERVICES and event.subject.partition("/")[0] in receiver.services

    def offer(self, event: Event, now: float, since: float | None = None) -> None:
        """One more event, in the order of their numbers; ``since``: when what it ends began."""
        if event.number <= self._seen:
            return
        self._seen = event.number
        at = self.sent.get(mark_of(event))
        if not self.wants(event) or (at is not None and at >= event.time):
            return
        topic = topic_of(event)
        if is_aside(event) and topic not in self._held:
            if self._pending is not None and topic in self._pending.items:
                self._pending.add(event)
            return
        self._held.setdefault(topic, []).append(Held(event, now, since))
        self._count_held += 1

    def lose(self, count: int) -> None:
        """So many events were never heard of."""
        self.missed += count
        self.facts = replace(self.facts, given_up=self.facts.given_up + count)

    def review(
        self,
        own: str,
        others: Sequence[Other],
        now: float,
        tolerance: Callable[[str], float],
    ) -> None:
        """Decides on what waits for a verdict; ``tolerance`` is by service, in seconds."""
        if not self._held:
            return
        patience = self.receiver.group_interval + self.receiver.group_wait + 30.0
        identity = self.receiver.identity
        for topic, waiting in list(self._held.items()):
            kept: list[Held] = []
            verdict = Verdict.DONE
            for held in waiting:
                event = held.event
                if is_aside(event):
                    pass  # with what it is about
                elif event.kind not in SHARED or self._count_held > HELD:
                    verdict = Verdict.TELL
                else:
                    moment = Moment(now, tolerance(event.subject.partition("/")[0]), patience)
                    only = sum(not is_aside(each.event) for each in waiting) == 1
                    verdict = judge(
                        *(event, held.heard, own, identity, others, moment, self.sent), only=only
                    )
                if verdict is Verdict.HOLD or kept:
                    kept.append(held)  # of one subject, in order
                    continue
                self._count_held -= 1
                if verdict is not Verdict.DONE:
                    self._tell(held, now, alone=verdict is Verdict.TELL_ALONE)
            if kept:
                self._held[topic] = kept
            else:
                del self._held[topic]

    def _tell(self, held: Held, now: float, *, alone: bool) -> None:
        if self._pending is None:
            if is_aside(held.event):
                return
            self._pending = Group(now)
        self._pending.add(held.event, held.since, alone=alone)

    # What goes out

    def due(self) -> float | None:
        """When the next message may be sent (monotonic); None: there is none."""
        if self._pending is None or self._flying is not None:
            return None
        if self._tries:
            return self._next_try
        due = self._pending.opened + self.receiver.group_wait
        if self._last_message is not None:
            due = max(due, self._last_message + self.receiver.group_interval)
        return due

    def take(self) -> Group:
        """What is to be sent now; ``ended`` must follow."""
        assert self._pending is not None
        self._flying, self._pending = self._pending, None
        return self._flying

    def give_back(self) -> None:
        """What was taken was not sent: the daemon ends, or the receiver goes."""
        group, self._flying = self._flying, None
        if group is not None:
            self._put_back(group)

    def ended(self, outcome: Outcome, now: float, wall: float) -> EventKind | None:
        """How the sending of what was taken ended; what is to be told of the receiver itself."""
        group, self._flying = self._flying, None
        assert group is not None
        if not outcome.error:
            return self._delivered(group, now, wall)
        facts = self.facts
        since = facts.failing_since if facts.failing_since is not None else wall
        self.facts = replace(
            facts,
            failed=facts.failed + 1,
            last_failure=wall,
            error=outcome.error,
            failing_since=since,
        )
        self._tries += 1
        self._refusals = self._refusals + 1 if outcome.refused else 0
        self._next_try = now + max(min(_LONGEST_WAIT, 2.0 ** min(self._tries, 10)), outcome.wait)
        if now - group.opened > GIVE_UP or self._refusals >= REFUSALS:
            self._refusals = 0
            self._give_up(group)
        else:
            self._put_back(group)
        if not self.failing_told and wall - since >= FAILING:
            self.failing_told = True
            return EventKind.NOTIFY_FAILED
        return None

    def _put_back(self, group: Group) -> None:
        if self._pending is not None:
            group.take_in(self._pending)
        self._pending = group

    def _delivered(self, group: Group, now: float, wall: float) -> EventKind | None:
        for item in group.items.values():
            self._remember(item.last)
            if item.first.kind is not item.last.kind:
                self._remember(item.first)
            if item.flapped:
                # Between the first and the last both kinds have happened.
                for kind in (item.topic[0], *(k for k, v in ENDS.items() if v is item.topic[0])):
                    self._remember(replace(item.last, kind=kind))
        self.revision += 1
        self._last_message = now
        self._tries = self._refusals = 0
        self.missed = 0
        self.facts = replace(
            self.facts,
            sent=self.facts.sent + 1,
            events=self.facts.events + group.events,
            last_success=wall,
            error="",
            failing_since=None,
        )
        if self.failing_told:
            self.failing_told = False
            return EventKind.NOTIFY_RECOVERED
        return None

    def _remember(self, event: Event) -> None:
        mark = mark_of(event)
        at = max(self.sent.pop(mark, 0.0), event.time)
        self.sent[mark] = at  # the last one is the newest
        while len(self.sent) > SENT:
            del self.sent[next(iter(self.sent))]

    def _give_up(self, group: Group) -> None:
        self.lose(group.events)

    # What others know

    @property
    def unsettled(self) -> float | None:
        """When the first event was that is still to be told, in seconds since the epoch."""
        times = [group.first_time for group in self._groups]
        times += [held.event.time for each in self._held.values() for held in each]
        return min(times, default=None)

    @property
    def position(self) -> int:
        """The number up to which nothing is left: where the next daemon goes on."""
        numbers = [group.first_number for group in self._groups]
        numbers += [held.event.number for each in self._held.values() for held in each]
        return min(numbers, default=self._seen + 1) - 1

    @property
    def waits(self) -> bool:
        """Whether a verdict is still to come for some event."""
        return bool(self._held)

    @property
    def _groups(self) -> list[Group]:
        return [group for group in (self._pending, self._flying) if group is not None]

    def current(self) -> ReceiverFacts:
        """How it stands."""
        waiting = sum(group.events for group in self._groups)
        return replace(self.facts, waiting=waiting, held=self._count_held)

    def stored(self) -> dict[str, Any]:
        """What the next daemon must know."""
        return {
            "cursor": self.position,
            "sent": self.sent,
            "missed": self.missed,
            "failing_since": self.facts.failing_since,
            "failing_told": self.failing_told,
        }
