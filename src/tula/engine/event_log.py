"""The daemon's latest events: kept for whoever asks, on disk too, and written to the journal."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from tula.engine.event_file import KEPT, EventFile
from tula.model.event import Event, EventKind, EventPage, choose_events
from tula.model.health import BackendStatus, State
from tula.plan.backend_status import DEADLINE_PASSED, BackendStatuses

_LOUD = frozenset(
    {
        EventKind.API_WARNING,
        EventKind.BACKEND_DOWN,
        EventKind.BACKEND_DIAGNOSED,
        EventKind.BACKEND_WARNING,
        EventKind.BACKUPS_STARTED,
        EventKind.CYCLE_FAILED,
        EventKind.CONFIGURATION_REFUSED,
        EventKind.CONFIGURATION_DIFFERS,
        EventKind.CONFIGURATION_TENTATIVE,
        EventKind.CONFIGURATION_REVERTED,
        EventKind.EVERYWHERE_IN_DOUBT,
        EventKind.EVERYWHERE_TAKEN_BACK,
        EventKind.EVERYWHERE_UNFINISHED,
        EventKind.KERNEL_REPAIRED,
        EventKind.MINIMUM_MISSED,
        EventKind.NETWORK_WARNING,
        EventKind.PANIC_STARTED,
        EventKind.TASK_FAILED,
        EventKind.AUDIT_FAILED,
        EventKind.CLIENTS_FULL,
        EventKind.NOTIFY_FAILED,
        EventKind.PEER_LOST,
        EventKind.CONFIGURATIONS_DIFFER,
        EventKind.OVERRIDES_DIFFER,
        EventKind.CLOCKS_DIFFER,
        EventKind.ROLES_WRONG,
    }
)


class EventLog:
    """The last events; nothing is written when nothing happens.

    Any thread may add events and read them: numbers and times are given under one lock, so the
    order of the list is that of the numbers, and of the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.time, epoch: str | None = None) -> None:
        """``clock`` tells seconds since the epoch; ``epoch`` names the log that begins here, by
        default a random name; the numbers of another log mean nothing in it."""
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._number = 0
        self._log = structlog.get_logger("tula")
        self._held = _Held()
        self._file: EventFile | None = None
        self.epoch = secrets.token_hex(8) if epoch is None else epoch
        self.followers: list[Callable[[Event], None]] = []
        """What is told of each event, in the thread that added it; they may not wait."""

    @property
    def last_number(self) -> int:
        """The number of the last event; 0 if there is none."""
        with self._lock:
            return self._number

    @contextmanager
    def stored(self, file: EventFile) -> Iterator[None]:
        """Goes on where the file ends, by its epoch and its numbers, and writes to it inside."""
        found = file.open(self.epoch)
        with self._lock:
            self.epoch, self._number = found.epoch, found.next_number - 1
            self._events.extend(found.events)
            self._file = file
        try:
            yield
        finally:
            file.close()

    @property
    def events(self) -> list[Event]:
        """The last ones, the oldest first."""
        with self._lock:
            return list(self._events)

    def page(self, after: int | None, limit: int, epoch: str | None = None) -> EventPage:
        """Events as ``choose_events`` chooses them; all, for a reader who knows another epoch."""
        if epoch is not None and epoch != self.epoch:
            after = 0
        return EventPage(self.epoch, tuple(choose_events(self.events, after, limit)))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Shows what this thread adds inside only at the end: who hears of a change and then asks
        for the state must find the state after it."""
        if self._held.events is not None:
            yield
            return
        held = self._held.events = []
        try:
            yield
        finally:
            self._held.events = None
            for event in held:
                self.add(*event)

    def add(
        self,
        kind: EventKind,
        subject: str = "",
        message: str = "",
        evidence: str = "",
        by: str = "",
    ) -> None:
        """Something happened now; ``by`` is who asked for it."""
        if self._held.events is not None:
            self._held.events.append((kind, subject, message, evidence, by))
            return
        with self._lock:
            self._number += 1
            now = self._clock()
            event = Event(self._number, now, kind, subject, message, evidence, by)
            self._events.append(event)
            if self._file is not None:
                self._file.add(event)
        told = {"subject": subject, "message": message, "evidence": evidence, "by": by}
        shown = {name: text for name, text in told.items() if text}
        (self._log.warning if kind in _LOUD else self._log.info)(str(kind), **shown)
        for follow in tuple(self.followers):
            follow(event)


class _Held(threading.local):
    """What a thread has added and not shown yet; None: it shows all at once."""

    events: list[tuple[EventKind, str, str, str, str]] | None = None


_KINDS = {
    State.UP: EventKind.BACKEND_UP,
    State.DOWN: EventKind.BACKEND_DOWN,
    State.DRAINING: EventKind.DRAINED,
}


def state_events(
    before: BackendStatuses, after: BackendStatuses
) -> Iterator[tuple[EventKind, str, str, str]]:
    """An event's kind, subject, message and evidence for each backend whose state changed, and
    for each service that began or ended to panic."""
    for name, status in after.of.items():
        old = before.of.get(name)
        if old is status or old is None or old.state is status.state:
            continue
        kind = _kind(old, status)
        if kind is not None:
            message = f"was {old.state}, is {status.state}"
            yield kind, "/".join(name), message, status.reason
    for service in sorted(after.panicking - before.panicking):
        yield (
            EventKind.PANIC_STARTED,
            service,
            "too few backends are up: all of them serve, whatever their checks say",
            "",
        )
    for service in sorted(before.panicking - after.panicking):
        yield EventKind.PANIC_ENDED, service, "enough backends are up again", ""
    yield from _pool_events(before, after)


def _pool_events(
    before: BackendStatuses, after: BackendStatuses
) -> Iterator[tuple[EventKind, str, str, str]]:
    """For each service whose backups began or ended to serve, or that missed its minimum."""
    for service, level in sorted(after.backups.items()):
        if before.backups.get(service) != level:
            message = f"too few other backends can serve: backups of level {level} do"
            yield EventKind.BACKUPS_STARTED, service, message, ""
    for service in sorted(before.backups.keys() - after.backups.keys()):
        serve = service not in after.panicking and any(
            status.weight for (name, _), status in after.of.items() if name == service
        )
        message = "enough other backends can serve again" if serve else "no backup can serve either"
        yield EventKind.BACKUPS_ENDED, service, message, ""
    for service in sorted(after.short - before.short):
        message = "fewer backends can serve than its minimum: nobody serves"
        yield EventKind.MINIMUM_MISSED, service, message, ""
    for service in sorted(before.short - after.short):
        yield EventKind.MINIMUM_REACHED, service, "enough backends can serve again", ""


def _kind(old: BackendStatus, new: BackendStatus) -> EventKind | None:
    """What the operator did, or the checks found, in the words of the command."""
    if new.state is State.DISABLED:
        over = new.reason == DEADLINE_PASSED
        return EventKind.DRAIN_ENDED if over else EventKind.DISABLED
    if old.state is State.DISABLED and new.state is not State.DOWN:
        if old.reason != DEADLINE_PASSED:
            return EventKind.ENABLED
        return EventKind.DRAINED if new.state is State.DRAINING else EventKind.UNDRAINED
    if old.state is State.DRAINING and new.state in (State.UP, State.UNKNOWN):
        return EventKind.UNDRAINED
    if old.state is State.DOWN and new.state is State.DRAINING:
        return EventKind.BACKEND_UP  # only its checks can end that it is down
    return _KINDS.get(new.state)
