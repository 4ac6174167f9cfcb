"""How many connections each backend has, counted now and then while somebody needs to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from tula.daemon.reconciler import Reconciler
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.model.errors import KernelError
from tula.model.event import EventKind
from tula.model.health import BackendName, State
from tula.plan.least import least_shares, whole_shares

_EVERY = 2.0
_SHARE = 20
"""Counting makes the kernel walk its tables: this many times as long as it took, it rests."""
_LIMIT = 5.0
"""Seconds after which a count is given up: the tables are too large (see docs/operations.md)."""

_TOO_MANY = (
    "too many connections to count, or the kernel does not tell: least-connections goes by weight"
)


class Held:
    """The last count; None while nobody drains, or the tables are too large to count."""

    def __init__(
        self,
        balancer: Balancer,
        reconciler: Reconciler,
        events: EventLog,
        on_count: Callable[[], None] = lambda: None,
        on_shares: Callable[[], None] = lambda: None,
    ) -> None:
        self._balancer = balancer
        self._reconciler = reconciler
        self._events = events
        self._on_count = on_count
        self._on_shares = on_shares
        self._emptied: set[BackendName] = set()
        self._least: dict[str, dict[str, float]] = {}
        self.problems: tuple[str, ...] = ()
        """Why least-connections cannot go by connections now."""
        self.counts: Mapping[BackendName, int] | None = None

    async def run(self) -> None:
        """Counts until it is cancelled."""
        while True:
            took = 0.0
            if self._reconciler.counts_wanted:
                start = time.monotonic()
                counts = await asyncio.to_thread(self.count)
                took = time.monotonic() - start
                self.take(counts)
            else:
                self.counts, self.problems = None, ()
            await asyncio.sleep(max(_EVERY, took * _SHARE))

    def take(self, counts: Mapping[BackendName, int] | None) -> None:
        """Acts on a count; in the loop."""
        self.counts = counts
        self._tell_emptied()
        self._share()
        self._on_count()

    def count(self) -> Mapping[BackendName, int] | None:
        """Asks the kernel; in a thread. None when it takes too long."""
        applied = self._balancer.applied
        try:
            held = self._balancer.connections(_LIMIT)
        except KernelError:
            return None
        if held is None or applied is None:
            return None
        return {
            (service.name, backend.name): held.get((service.name, backend.key), 0)
            for service in applied.config.services
            for backend in service.backends
        }

    def _share(self) -> None:
        """Moves the shares of least-connections after the count; without one, weights count."""
        services, counts = self._reconciler.least, self.counts
        self.problems = (_TOO_MANY,) if services and counts is None else ()
        standings, before = self._reconciler.standings.of, self._reconciler.shares
        wanted: dict[str, Mapping[str, int]] = {}
        if counts is None:
            self._least = {}
            services = ()
        for service in services:
            names = {backend.name: (service.name, backend.name) for backend in service.backends}
            weights = {b: standings[n].weight for b, n in names.items() if n in standings}
            held = {b: (counts or {}).get(n, 0) for b, n in names.items()}
            shares = least_shares(weights, held, self._least.get(service.name, {}))
            self._least[service.name] = shares
            wanted[service.name] = whole_shares(shares, before.get(service.name, {}))
        if wanted != before:
            self._reconciler.shares = wanted
            self._on_shares()

    def _tell_emptied(self) -> None:
        """A drain ends when nothing is left; the backend stays drained until it is undrained."""
        draining = {
            name
            for name, standing in self._reconciler.standings.of.items()
            if standing.state is State.DRAINING
        }
        self._emptied &= draining
        for name in draining - self._emptied:
            if self.counts is not None and self.counts.get(name) == 0:
                self._emptied.add(name)
                self._events.add(EventKind.DRAIN_ENDED, "/".join(name), "no connections are left")
