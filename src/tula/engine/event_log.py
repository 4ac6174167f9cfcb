"""What happened lately, kept for whoever asks, and told to the journal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import structlog

from tula.model.event import Event, EventKind

KEPT = 2000
_LOUD = frozenset(
    {
        EventKind.BACKEND_DOWN,
        EventKind.BACKEND_WARNING,
        EventKind.CYCLE_FAILED,
        EventKind.DOCUMENT_REFUSED,
        EventKind.KERNEL_MENDED,
        EventKind.PANIC_STARTED,
    }
)


class EventLog:
    """The last events; nothing is written when nothing happens."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._number = 0
        self._log = structlog.get_logger("tula")

    @property
    def events(self) -> list[Event]:
        """The last ones, the oldest first."""
        return list(self._events)

    def add(
        self, kind: EventKind, subject: str = "", message: str = "", evidence: str = ""
    ) -> None:
        """Something happened now."""
        self._number += 1
        self._events.append(Event(self._number, self._clock(), kind, subject, message, evidence))
        told = {"subject": subject, "message": message, "evidence": evidence}
        shown = {name: text for name, text in told.items() if text}
        (self._log.warning if kind in _LOUD else self._log.info)(str(kind), **shown)
