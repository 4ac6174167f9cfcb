"""When the next cycle starts: triggers gather for a moment, and failures wait longer and longer.

Pure: time is passed in, in seconds of any clock that does not go back.
"""

from __future__ import annotations

from enum import StrEnum


class Trigger(StrEnum):
    """Why a cycle is wanted."""

    START = "start"
    CONFIGURATION = "configuration"
    OVERRIDE = "override"
    HEALTH = "health"
    KERNEL = "kernel"
    """something changed in the kernel that the daemon did not do"""
    TIME = "time"
    """a slow start's step, a drain's deadline"""
    DRIFT = "drift"
    """a full comparison from time to time"""

    @property
    def compares(self) -> bool:
        """Whether the kernel has to be read, not only what is known of it changed."""
        return self in (Trigger.START, Trigger.KERNEL, Trigger.DRIFT)

    @property
    def asked_for(self) -> bool:
        """Whether a person waits for it: it does not wait for the backoff after failures."""
        return self in (Trigger.START, Trigger.CONFIGURATION, Trigger.OVERRIDE)


# A dead machine fails many probes within moments, and a link that goes takes routes and
# addresses with it: what comes together is one cycle.
GATHER = {Trigger.HEALTH: 0.005, Trigger.KERNEL: 0.1}
FIRST_WAIT, LONGEST_WAIT = 0.25, 30.0
_LONGEST_REST = 0.25


def wait_after(failures: int) -> float:
    """Seconds until the next try, after so many in a row before this one failed too."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures, 10))


class TriggerQueue:
    """The triggers since the last cycle, and when to act on them."""

    def __init__(self) -> None:
        self._due: float | None = None
        self._triggers: set[Trigger] = set()
        self._failures = 0
        self._not_before = 0.0
        self._rested = 0.0

    def note(self, trigger: Trigger, now: float) -> None:
        """Something happened. Later triggers of a burst do not put its cycle off."""
        due = now + GATHER.get(trigger, 0.0)
        if trigger is Trigger.HEALTH:
            due = max(due, self._rested)
        if trigger.asked_for:
            self._not_before = min(self._not_before, due)
        self._triggers.add(trigger)
        self._due = due if self._due is None else min(self._due, due)

    def due(self) -> float | None:
        """When the next cycle starts; None while nothing asks for one."""
        return None if self._due is None else max(self._due, self._not_before)

    def take(self) -> frozenset[Trigger]:
        """The triggers that the cycle that starts now answers."""
        taken = frozenset(self._triggers)
        self._triggers.clear()
        self._due = None
        return taken

    def succeeded(self, now: float = 0.0, seconds: float = 0.0) -> None:
        """The cycle did what it had to, and took so many seconds.

        The next one for health comes after as long a rest: a machine with a thousand services
        fails a thousand probes over their interval, and is not to be planned for a thousand times.
        """
        self._failures = 0
        self._not_before = 0.0
        self._rested = now + min(seconds, _LONGEST_REST)

    def failed(self, now: float) -> None:
        """The cycle failed: the next one compares everything, after a wait that doubles."""
        wait = wait_after(self._failures)
        self._failures += 1
        self._not_before = now + wait
        self._triggers.add(Trigger.KERNEL)
        self._due = self._not_before if self._due is None else min(self._due, self._not_before)
