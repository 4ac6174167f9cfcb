"""One message: what a group of events says to people, and to programs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tula.daemon.notify.group import Group, Item, Status
from tula.model.event import EventKind
from tula.model.severity import OF_SERVICES, Severity, severity_of
from tula.model.wording import printable

VERSION = 1
LISTED = 1000
"""Changes that JSON lists."""
_LINES = 20
"""Changes that the text lists, of each kind."""
_SERVICES = 4
_LONGEST = 300

_WORDS: dict[EventKind, tuple[str, str]] = {
    EventKind.BACKEND_DOWN: ("down", "up again"),
    EventKind.DRAINED: ("drained", "no longer drained"),
    EventKind.DISABLED: ("disabled", "enabled again"),
    EventKind.PANIC_STARTED: ("panic: all backends serve", "panic is over"),
    EventKind.BACKUPS_STARTED: ("backups serve", "backups no longer serve"),
    EventKind.MINIMUM_MISSED: ("too few backends, nobody serves", "enough backends again"),
    EventKind.PEER_LOST: ("does not answer", "answers again"),
    EventKind.NETWORK_WARNING: ("network warning", "network recovered"),
    EventKind.API_WARNING: ("api warning", "api recovered"),
    EventKind.CYCLE_FAILED: ("the kernel cannot be updated", "the kernel is updated again"),
    EventKind.STANDBY: ("stands by", "active again"),
    EventKind.CONFIGURATIONS_DIFFER: ("configurations differ", "configurations are equal again"),
    EventKind.OVERRIDES_DIFFER: ("overrides differ", "overrides are equal again"),
    EventKind.CLOCKS_DIFFER: ("clocks differ", "clocks agree again"),
    EventKind.ROLES_WRONG: ("roles are wrong", "roles are right again"),
    EventKind.NOTIFY_FAILED: ("notifications fail", "notifications arrive again"),
}
"""What has begun, and what has ended."""
_OF_BACKENDS = frozenset(
    kind for kind in OF_SERVICES if not kind.startswith(("panic-", "backups-", "minimum-"))
)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent. ``id`` is the same whenever the same events are told, and of no other
    message; ``missed`` counts earlier events that were given up."""

    id: str
    balancer: str
    receiver: str
    time: float
    status: str
    severity: Severity
    subject: str
    text: str
    counts: tuple[dict[str, Any], ...] = ()
    items: tuple[Item, ...] = ()
    events: int = 0
    truncated: int = 0
    missed: int = 0
    test: bool = False
    since: float = field(default=0.0)

    def describe(self) -> dict[str, Any]:
        """The JSON that webhooks get, and programs on their standard input."""
        return {
            "version": VERSION,
            "id": self.id,
            "test": self.test,
            "balancer": self.balancer,
            "receiver": self.receiver,
            "time": self.time,
            "status": self.status,
            "severity": str(self.severity),
            "subject": self.subject,
            "text": self.text,
            "events": self.events,
            "missed": self.missed,
            "counts": list(self.counts),
            "changes": [_change(item) for item in self.items],
            "truncated": self.truncated,
        }


def make_message(
    group: Group, *, epoch: str, balancer: str, receiver: str, now: float, missed: int = 0
) -> Message:
    """``now`` is in seconds since the epoch; ``epoch`` that of the event log."""
    items = group.sorted()
    worst = max(
        (severity_of(item.last.kind) for item in items),
        key=lambda each: each.rank,
        default=Severity.INFO,
    )
    parts = [_headline(kind, status, found) for (kind, status), found in group.kinds()]
    parts += [f"{count:,} more of {kind}" for kind, count in sorted(group.others.items())]
    statuses = {item.status for item in items}
    status = next((s for s in Status if s in statuses), Status.HAPPENED)
    subject = _bounded(parts)
    return Message(
        id=f"{epoch}-{group.last_number}-{group.events}",
        balancer=balancer,
        receiver=receiver,
        time=now,
        status=str(status),
        severity=worst,
        subject=subject,
        text="\n".join(_lines(group, balancer, now, missed)) + "\n",
        counts=tuple(_counts(group)),
        items=tuple(items[:LISTED]),
        events=group.events,
        truncated=max(0, len(items) - LISTED) + sum(group.others.values()),
        missed=missed,
        since=min((item.since for item in items), default=now),
    )


def make_test(balancer: str, receiver: str, now: float) -> Message:
    """A message that says nothing but that messages arrive."""
    subject = "a test of notifications"
    text = f"This is a test by tula notify test on {balancer}. Nothing has changed.\n"
    return Message(
        *(f"test-{int(now * 1000)}", balancer, receiver, now),
        *(str(Status.HAPPENED), Severity.INFO, subject, text),
        test=True,
        since=now,
    )


def name_parts(item: Item) -> tuple[str, str]:
    """Service and backend of a change, empty where it is of none."""
    kind, subject = item.topic
    if kind not in OF_SERVICES:
        return "", ""
    service, _, backend = subject.partition("/")
    return service, backend


def _change(item: Item) -> dict[str, Any]:
    service, backend = name_parts(item)
    return {
        "kind": str(item.last.kind),
        "about": str(item.topic[0]),
        "subject": item.topic[1],
        "service": service,
        "backend": backend,
        "status": str(item.status),
        "severity": str(severity_of(item.last.kind)),
        "since": item.since,
        "time": item.last.time,
        "events": item.count,
        "flapped": item.flapped,
        "began": item.began,
        "ended": item.ended,
        "message": item.last.message,
        "evidence": item.evidence,
        "by": item.last.by,
        "seen_only_here": item.alone,
        "number": item.last.number,
    }


def _counts(group: Group) -> Iterator[dict[str, Any]]:
    for (kind, status), found in group.kinds():
        yield {
            "about": str(kind),
            "status": str(status),
            "count": len(found),
            "flapped": sum(item.flapped for item in found),
            "services": dict(_services(found)),
        }
    for other, count in sorted(group.others.items()):
        yield {"about": str(other), "status": "", "count": count, "flapped": 0, "services": {}}


def _services(items: Sequence[Item]) -> list[tuple[str, int]]:
    counts = Counter(name_parts(item)[0] for item in items)
    del counts[""]
    return counts.most_common()


def _words(kind: EventKind, status: Status) -> str:
    begun, ended = _WORDS.get(kind, (str(kind).replace("-", " "),) * 2)
    return ended if status is Status.RESOLVED else begun


def _headline(kind: EventKind, status: Status, items: Sequence[Item]) -> str:
    """``500 backends down (web: 250, api: 250)``, or what one change is."""
    if len(items) == 1:
        (item,) = items
        why = item.evidence or item.last.message if status is not Status.RESOLVED else ""
        told = _one(kind, status, item)
        return f"{told}: {printable(why, 120)}" if why else told
    noun = "backends " if kind in _OF_BACKENDS else "times " if not items[0].topic[1] else ""
    services = _services(items)
    listed = [f"{printable(name, 63)}: {count:,}" for name, count in services[:_SERVICES]]
    more = len(services) - _SERVICES
    if more > 0:
        listed.append(f"{more:,} more services")
    flapped = sum(item.flapped for item in items)
    if flapped:
        listed.append("flapped" if flapped == len(items) else f"{flapped:,} flapped")
    where = f" ({', '.join(listed)})" if listed else ""
    joined = f"{len(items):,} {noun}" if noun else f"{len(items):,} × "
    return f"{joined}{_words(kind, status)}{where}"


def _one(kind: EventKind, status: Status, item: Item) -> str:
    subject, words = printable(item.topic[1], 127), _words(kind, status)
    if kind in _OF_BACKENDS:
        told = f"backend {subject} {words}"
    elif kind is EventKind.PEER_LOST:
        told = f"balancer {subject} {words}"
    else:
        told = f"{subject}: {words}" if subject else words
    return f"{told} ({_flaps(item)})" if item.flapped else told


def _flaps(item: Item) -> str:
    kind = item.topic[0]
    if kind is EventKind.BACKEND_DOWN:
        return f"flapped: {item.began} × down, {item.ended} × up"
    return f"changed {item.began + item.ended} times"


def _bounded(parts: Sequence[str]) -> str:
    told = ""
    for number, part in enumerate(parts):
        longer = f"{told}; {part}" if told else part
        if len(longer) > _LONGEST - 20 and told:
            return f"{told}; and {len(parts) - number} more"
        told = longer
    return printable(told or "nothing", _LONGEST)


def _lines(group: Group, balancer: str, now: float, missed: int) -> Iterator[str]:
    for (kind, status), items in group.kinds():
        if len(items) > 1:
            yield f"{_headline(kind, status, items)}:"
        for item in items[:_LINES]:
            indent = "  " if len(items) > 1 else ""
            yield indent + _line(kind, status, item)
        if len(items) > _LINES:
            yield f"  and {len(items) - _LINES:,} more"
    for other, count in sorted(group.others.items()):
        yield f"{count:,} more of {other}"
    yield ""
    if missed:
        yield f"{missed:,} earlier events could not be told, and were given up."
    many = "event" if group.events == 1 else "events"
    yield f"{group.events:,} {many}, told by balancer {balancer} at {moment(now)}."


def _line(kind: EventKind, status: Status, item: Item) -> str:
    told = [_one(kind, status, item)]
    if status is Status.HAPPENED:
        told.append(f"at {moment(item.last.time)}")
    elif status is Status.FIRING:
        told.append(f"since {moment(item.since)}")
    else:
        told.append(f"from {moment(item.since)} to {moment(item.last.time)}")
    line = " ".join(told)
    why = [text for text in (item.last.message, item.evidence) if text]
    if kind is EventKind.BACKEND_DOWN:
        why = [item.evidence] if item.evidence and status is Status.FIRING else []
    if why:
        line += ": " + "; ".join(printable(text, 200) for text in why)
    if item.last.by:
        line += f" (by {printable(item.last.by, 64)})"
    if item.alone:
        line += " (no other balancer sees this)"
    return line


def moment(seconds: float) -> str:
    """A time as people and programs read it (RFC 3339, UTC, seconds)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
