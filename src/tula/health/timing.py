"""How late probes start, how busy the loop itself is, and how long probes take."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

_WINDOW = 60.0
_BEAT = 0.1

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets in seconds; one more bucket has no bound."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """By how much probes started late, since the checker was made.

    ``seconds`` is the sum over all ``starts``; ``worst`` that of the last minute or two.
    """

    starts: int = 0
    seconds: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long a service's probes took.

    ``counts`` has a number for each of ``BOUNDS``, of the probes that took that long at most and
    longer than the bound before, and a last one for those above all bounds. ``seconds`` is the sum
    over all probes. None of them ever falls while the service has checks.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many probes ended."""
        return sum(self.counts)

    @property
    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Each bound in seconds, the last one infinite, with the probes that took no longer."""
        return tuple(zip((*BOUNDS, float("inf")), accumulate(self.counts), strict=True))

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.seconds + other.seconds)


class LoopLag:
    """How many seconds the loop has been late in all, by a timer of its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._lost = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to measure."""
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

    def record(self, late: float, now: float) -> None:
        """One more start, ``late`` seconds after it was due."""
        self._advance(now)
        self._starts += 1
        self._seconds += late
        self._worst[0] = max(self._worst[0], late)

    def read(self, now: float) -> Lateness:
        """The count until now; ``now`` is of the same clock."""
        self._advance(now)
        return Lateness(self._starts, self._seconds, max(self._worst))

    def _advance(self, now: float) -> None:
        window = int(now / _WINDOW)
        if window != self._window:
            before = self._worst[0] if window == self._window + 1 else 0.0
            self._worst = [0.0, before]
            self._window = window


class Durations:
    """What probes of the same services took. One more costs the same, however many they are."""

    __slots__ = ("_counts", "_seconds", "services")

    def __init__(self, services: frozenset[str]) -> None:
        self.services = services
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def record(self, seconds: float) -> None:
        """One more probe ended after so long."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def read(self) -> Histogram:
        """The probes until now."""
        return Histogram(tuple(self._counts), self._seconds)


class DurationsByService:
    """The histograms of all services. A probe that several share counts for each of them."""

    def __init__(self) -> None:
        self._before: dict[str, Histogram] = {}
        self._running: dict[frozenset[str], Durations] = {}

    def read(self) -> Mapping[str, Histogram]:
        """By service, for those that have checks."""
        found = dict(self._before)
        for durations in self._running.values():
            more = durations.read()
            for service in durations.services:
                before = found.get(service)
                found[service] = more if before is None else before + more
        return found

    def restart(self, services: Iterable[str]) -> None:
        """Other probes follow: totals of these services are kept, the others go."""
        found = self.read()
        self._before = {name: found[name] for name in services if name in found}
        self._running = {}

    def of(self, services: frozenset[str]) -> Durations:
        """Where a probe of these services records how long it took, until the next restart."""
        durations = self._running.get(services)
        if durations is None:
            durations = self._running[services] = Durations(services)
        return durations
