"""What happened, as the daemon remembers it for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """Short fixed words; programs choose by them. Add to them, do not change them."""

    DAEMON_STARTED = "daemon-started"
    DAEMON_STOPPED = "daemon-stopped"
    DOCUMENT_ACCEPTED = "document-accepted"
    DOCUMENT_REFUSED = "document-refused"
    BACKEND_UP = "backend-up"
    BACKEND_DOWN = "backend-down"
    BACKEND_DIAGNOSED = "backend-diagnosed"
    """why one is down that is down"""
    BACKEND_WARNING = "backend-warning"
    """something that does not count yet, such as a certificate that expires soon"""
    DRAINED = "drained"
    """the operator takes a backend out of the choice"""
    DRAIN_ENDED = "drain-ended"
    """its deadline is past: what it had left was given up"""
    UNDRAINED = "undrained"
    DISABLED = "disabled"
    ENABLED = "enabled"
    WEIGHT_SET = "weight-set"
    PANIC_STARTED = "panic-started"
    """so few backends of a service are up that all serve"""
    PANIC_ENDED = "panic-ended"
    KERNEL_MENDED = "kernel-mended"
    """the kernel was not as it should have been: somebody else changed it"""
    CYCLE_FAILED = "cycle-failed"
    CYCLE_RECOVERED = "cycle-recovered"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; numbers count up from 1, without gaps, while the daemon runs.

    ``time`` is in seconds since the epoch; ``subject`` is ``service/backend``, a service's name,
    or empty; ``evidence`` is one line, such as what a probe saw.
    """

    number: int
    time: float
    kind: EventKind
    subject: str = ""
    message: str = ""
    evidence: str = ""


def choose_events(events: Sequence[Event], after: int | None, limit: int) -> list[Event]:
    """The first ``limit`` events behind number ``after``; without it, the last ``limit`` ones.

    A number that is still to come is one of an earlier daemon: all of this one's are new then.
    """
    if limit <= 0 or not events:
        return []
    if after is None:
        return list(events[-limit:])
    if after > events[-1].number:
        after = 0
    return [event for event in events if event.number > after][:limit]
