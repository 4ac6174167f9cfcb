"""The audit log's entries of what nobody asked the API for: SIGHUP, a changed file, time that is
over. What is asked for there, the API enters itself."""

from __future__ import annotations

from collections.abc import Callable

from tula.engine.audit import AuditLog, Entry, Result, new_entry
from tula.engine.callers import DAEMON, Caller, Scope
from tula.model.event import Event, EventKind

_SIGNAL = "SIGHUP"
_ACTIONS = {
    EventKind.CONFIGURATION_ACCEPTED: ("apply", Result.DONE),
    EventKind.CONFIGURATION_REVERTED: ("go-back", Result.DONE),
    EventKind.CONFIGURATION_REFUSED: ("apply", Result.REFUSED),
}


def follow_events(log: AuditLog) -> Callable[[Event], None]:
    """What is to be told of every event."""

    def follow(event: Event) -> None:
        entry = entry_of(event)
        if entry is not None:
            log.add(entry)

    return follow


def entry_of(event: Event) -> Entry | None:
    """The change that the event is about, if nobody asked the API for it.

    A refusal that nobody asked for is none: it only says that the file is wrong.
    """
    action, result = _ACTIONS.get(event.kind, ("", Result.DONE))
    if not action or event.by not in ("", _SIGNAL):
        return None
    if result is Result.REFUSED and not event.by:
        return None
    caller = Caller(event.by, Scope.LOCAL) if event.by else DAEMON
    entry = new_entry(caller, action, wall=lambda: event.time)
    if result is Result.REFUSED:
        return entry.ended(result, event.message)
    told = {"how": event.message, "changes": event.evidence}
    return entry.ended(result, **{name: text for name, text in told.items() if text})
