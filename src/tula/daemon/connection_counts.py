"""How many connections each backend has: counted now and then while somebody needs to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from tula.daemon.snapshot import Connections, Snapshot
from tula.engine.event_log import EventLog
from tula.model.config import Config
from tula.model.event import EventKind
from tula.model.health import BackendName, State
from tula.model.stats import BackendKey, Counted, is_estimate
from tula.plan.backend_status import Shares
from tula.plan.least_connections import least_shares, whole_shares

_EVERY = 2.0
_SHARE = 20
"""Counting makes the kernel walk its tables: it then rests this many times as long as it took."""
LIMIT = 5.0
"""Seconds after which a count is given up: the tables are too large (see docs/operations.md)."""
_LONGEST = 600.0
"""Seconds, at most, until it is tried again to find out whether a drained backend is empty."""
LIMIT_OF_DRAIN = 120.0
"""The same where somebody waits for a backend to be empty, which then must be certain."""

_TOO_MANY = (
    "too many connections to count, or the kernel does not tell: least-connections goes by weight"
)

Count = Callable[[float, frozenset[BackendKey]], Awaitable[Mapping[BackendKey, int] | None]]
"""Asks the kernel: connections by service and Backend.key, see ``DataPath.connections``; None when
that took too long or failed."""
Report = Callable[[Connections | None], Awaitable[None]]
"""Has the writer act on a count."""


class ConnectionCounter:
    """Counts while a backend drains or a service has the scheduler least-connections.

    Runs in the event loop; the counting itself is done elsewhere, and never waits for the writer.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], count: Count, report: Report) -> None:
        self._snapshot = snapshot
        self._count = count
        self._report = report
        self._certain_from = 0.0
        """when it may be asked again which backends are empty, by time.monotonic"""
        self._empty: frozenset[BackendKey] = frozenset()

    async def run(self) -> None:
        """Counts until it is cancelled."""
        while True:
            took = await self.step()
            await asyncio.sleep(max(_EVERY, took * _SHARE))

    async def step(self) -> float:
        """One count, if it is wanted; the seconds that it took."""
        if not self._snapshot().wants_connections:
            if self._snapshot().connections is not None:
                await self._report(None)
            return 0.0
        start = time.monotonic()
        counts = await self._count(LIMIT, frozenset())
        took = time.monotonic() - start
        if isinstance(counts, Counted) and counts.estimated:
            counts = await self._with_empty(counts)
        await self._report(None if counts is None else name_connections(self._snapshot(), counts))
        return took

    async def _with_empty(self, counts: Counted) -> Counted:
        """The estimate, and which of the drained backends are empty for certain.

        To find out takes a walk through all flows. A drained backend gets nothing new: once it is
        empty, that need not be found again.
        """
        drained = {key for key in _drained(self._snapshot()) if not counts.get(key)}
        self._empty &= drained
        start, doubtful = time.monotonic(), drained - self._empty
        if doubtful and start >= self._certain_from:
            found = await self._count(LIMIT_OF_DRAIN, frozenset(doubtful))
            now = time.monotonic()
            self._certain_from = now + min((now - start) * _SHARE, _LONGEST)
            if isinstance(found, Counted):
                self._empty |= found.empty if found.estimated else doubtful - found.keys()
        return Counted(counts, True, self._empty)


def _drained(snapshot: Snapshot) -> frozenset[BackendKey]:
    """The backends that somebody may wait for."""
    configuration = snapshot.configuration
    return frozenset(
        (service.name, backend.key)
        for service in (configuration.config.services if configuration is not None else ())
        for backend in service.backends
        if (override := snapshot.overrides.get((service.name, backend.name))) is not None
        and override.drain
    )


def name_connections(snapshot: Snapshot, counts: Mapping[BackendKey, int]) -> Connections:
    """Connections by the backends' names; those of backends without any are left out."""
    configuration = snapshot.configuration
    return {} if configuration is None else name_counts(configuration.config, counts)


def name_counts(config: Config, counts: Mapping[BackendKey, int]) -> Connections:
    """The same, by a configuration."""
    names = {
        (service.name, backend.key): (service.name, backend.name)
        for service in config.services
        for backend in service.backends
    }
    named = {names[key]: number for key, number in counts.items() if key in names}
    if not isinstance(counts, Counted):
        return named
    return Counted(named, counts.estimated, (names[key] for key in counts.empty if key in names))


class ConnectionBalance:
    """What follows from a count: shares of least-connections, drains that are done.

    The writer's: called in its thread.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._emptied: set[BackendName] = set()
        self._least: dict[str, dict[str, float]] = {}
        self.problems: tuple[str, ...] = ()
        """Why least-connections cannot go by connections now."""

    def update(self, snapshot: Snapshot, counts: Connections | None) -> Shares | None:
        """The shares by a new count, or without one; None if those in ``snapshot`` stay."""
        self._tell_emptied(snapshot, counts)
        return self._share(snapshot, counts)

    def _share(self, snapshot: Snapshot, counts: Connections | None) -> Shares | None:
        """Without a count the weights alone decide."""
        services = snapshot.least_connections
        self.problems = (_TOO_MANY,) if services and counts is None else ()
        statuses, before = snapshot.statuses.of, snapshot.shares
        wanted: dict[str, Mapping[str, int]] = {}
        if counts is None:
            self._least = {}
            services = ()
        for service in services:
            names = {backend.name: (service.name, backend.name) for backend in service.backends}
            weights = {b: statuses[n].weight for b, n in names.items() if n in statuses}
            held = {b: (counts or {}).get(n, 0) for b, n in names.items()}
            shares = least_shares(weights, held, self._least.get(service.name, {}))
            self._least[service.name] = shares
            wanted[service.name] = whole_shares(shares, before.get(service.name, {}))
        return wanted if wanted != before else None

    def _tell_emptied(self, snapshot: Snapshot, counts: Connections | None) -> None:
        """A drain ends when nothing is left; the backend stays drained until it is undrained."""
        draining = {
            name for name, status in snapshot.statuses.of.items() if status.state is State.DRAINING
        }
        self._emptied &= draining
        for name in sorted(draining - self._emptied):
            if counts is not None and not counts.get(name) and not is_estimate(counts, name):
                self._emptied.add(name)
                self._events.add(EventKind.DRAIN_ENDED, "/".join(name), "no connections are left")
