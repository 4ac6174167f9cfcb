"""By how much probes start late, and the loop itself: the sign of too much for this machine."""

from __future__ import annotations

import asyncio

from tula.health.check import Lateness

_WINDOW = 60.0
_BEAT = 0.1


class Pulse:
    """How many seconds the loop has been late in all, by a timer of its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._lost = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to look."""
        self._loop = loop
        self._beat(loop.time())

    def stop(self) -> None:
        """Ends it."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None

    def lost(self) -> float:
        """Seconds until now."""
        if self._loop is None:
            return self._lost
        return self._lost + max(0.0, self._loop.time() - self._due)

    def _beat(self, due: float) -> None:
        if self._loop is not None:
            now = self._loop.time()
            self._lost += max(0.0, now - due)
            self._due = now + _BEAT
            self._timer = self._loop.call_at(self._due, self._beat, self._due)


class LateStarts:
    """Counts all starts; the worst one is that of the last minute or two."""

    def __init__(self) -> None:
        self._starts = 0
        self._seconds = 0.0
        self._worst = [0.0, 0.0]  # of this window, of the one before
        self._window = 0

    def note(self, late: float, now: float) -> None:
        """One more start, ``late`` seconds after it was due."""
        self._turn(now)
        self._starts += 1
        self._seconds += late
        self._worst[0] = max(self._worst[0], late)

    def read(self, now: float) -> Lateness:
        """The count until now; ``now`` is of the same clock."""
        self._turn(now)
        return Lateness(self._starts, self._seconds, max(self._worst))

    def _turn(self, now: float) -> None:
        window = int(now / _WINDOW)
        if window != self._window:
            before = self._worst[0] if window == self._window + 1 else 0.0
            self._worst = [0.0, before]
            self._window = window
