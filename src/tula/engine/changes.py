"""From two readings of how backends stand to what is worth telling of the difference."""

from __future__ import annotations

from collections.abc import Iterator

from tula.model.event import EventKind
from tula.model.health import Standing, State
from tula.plan.standing import Standings

Told = tuple[EventKind, str, str, str]
"""Kind, subject, message, evidence."""

_KINDS = {
    State.UP: EventKind.BACKEND_UP,
    State.DOWN: EventKind.BACKEND_DOWN,
    State.DISABLED: EventKind.DISABLED,
    State.DRAINING: EventKind.DRAINED,
}


def told_changes(before: Standings, after: Standings) -> Iterator[Told]:
    """What an event is made of, for every backend whose state changed and every panic."""
    for name, standing in after.of.items():
        old = before.of.get(name)
        if old is standing or old is None or old.state is standing.state:
            continue
        kind = _kind(old, standing)
        if kind is not None:
            message = f"was {old.state}, is {standing.state}"
            yield kind, "/".join(name), message, standing.reason
    for service in sorted(after.panicking - before.panicking):
        yield (
            EventKind.PANIC_STARTED,
            service,
            "too few backends are up: all serve, whatever their checks say",
            "",
        )
    for service in sorted(before.panicking - after.panicking):
        yield EventKind.PANIC_ENDED, service, "enough backends are up again", ""


def _kind(old: Standing, new: Standing) -> EventKind | None:
    if old.state is State.DRAINING and new.state is State.DISABLED:
        return EventKind.DRAIN_ENDED
    if new.state is State.UP and old.state is State.DISABLED:
        return EventKind.ENABLED
    if new.state is State.UP and old.state is State.DRAINING:
        return EventKind.UNDRAINED
    if new.state is State.UNKNOWN:
        return {State.DISABLED: EventKind.ENABLED, State.DRAINING: EventKind.UNDRAINED}.get(
            old.state
        )
    return _KINDS[new.state]
