"""``Control`` over the daemon in this process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from tula.config.load import LoadedConfig
from tula.config.redact import redacted_diff
from tula.daemon.answers import (
    NO_CONFIGURATION,
    CompareRequest,
    Comparison,
    CountRequest,
    MetricsRequest,
    PlanRequest,
    Request,
    SampleRequest,
    StatusRequest,
    TraceRequest,
    View,
)
from tula.daemon.checks import Checks, ProbeTable
from tula.daemon.loop import ControlLoop
from tula.daemon.readers import MakeAdapters, Readers, is_large_config
from tula.daemon.snapshot import Snapshot
from tula.daemon.supervisor import Supervisor
from tula.daemon.watch import FileWatch
from tula.engine.backend_view import BackendView, view_backend
from tula.engine.control import (
    ApplyOutcome,
    BusyError,
    DaemonFacts,
    Order,
    RefusedError,
    Rollback,
    find_backend,
)
from tula.engine.event_log import EventLog
from tula.engine.history import Entry, digest_of, find_entry
from tula.engine.overrides import OverrideChange, override_change
from tula.engine.statistics import DurationStatistics, LatenessStatistics
from tula.engine.store import Store
from tula.health.checker import Checker
from tula.kernel.clock import boot_time
from tula.model.errors import KernelError
from tula.model.event import EventKind, EventPage
from tula.model.flow import Flow
from tula.model.health import BackendName, Override
from tula.model.problem import PlacedProblem
from tula.model.stats import BackendKey, Count
from tula.plan.backend_status import without_route
from tula.plan.trace import Trace

_IN_SYNC = b'"in_sync": true'
_TRIES = 5
"""Looks at a kernel that the writer is just changing, before it is said to be out of sync."""
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Components:
    """What a daemon is made of, as far as ``LocalControl`` asks it."""

    loop: ControlLoop
    checker: Checker
    checks: Checks
    events: EventLog
    watch: FileWatch
    supervisor: Supervisor
    counters: Callable[[], Mapping[str, Count]] = dict
    """What the daemon counts beside the data path, by name."""


class LocalControl:
    """See ``Control`` for what each method promises."""

    def __init__(self, components: Components, make_adapters: MakeAdapters, store: Store) -> None:
        """``make_adapters`` makes the kernel anew, for the readers."""
        self._components = components
        self._store = store
        self._started = time.time()
        self._digest: tuple[LoadedConfig | None, str] = (None, "")
        self._probes = ProbeTable()
        self._readers = Readers(make_adapters, self._view)

    def close(self) -> None:
        """Ends the readers."""
        self._readers.close()

    async def status(self) -> bytes:
        self._configuration()
        loop = self._components.loop
        for left in reversed(range(_TRIES)):
            before = loop.snapshot
            answer = cast(bytes, await self._readers.ask(StatusRequest()))
            working = loop.busy_seconds() > 0 or loop.snapshot is not before
            if _IN_SYNC in answer or not working or not left:
                break
            await asyncio.sleep(_PAUSE)
        return answer

    async def backend(self, backend: BackendName) -> BackendView:
        configured = find_backend(self._configuration().config, backend)
        snapshot = self._components.loop.snapshot
        override = snapshot.overrides.get(backend, Override())
        held = snapshot.connections
        return view_backend(
            backend,
            configured,
            snapshot.statuses.of[backend],
            override,
            boot_time(),
            None if held is None else held.get(backend, 0),
        )

    async def events(self, after: int | None, limit: int, epoch: str | None = None) -> EventPage:
        return self._components.events.page(after, limit, epoch)

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        if self._components.loop.snapshot.configuration is None:
            raise BusyError("the daemon is starting; try again")
        return cast(Trace, await self._readers.ask(TraceRequest(flow, datagram)))

    async def drain(
        self, backend: BackendName, deadline: float | None, *, by: str = "", yes: bool = False
    ) -> None:
        change = override_change("drain", boot_time(), deadline=deadline)
        await self._override(backend, change, by, yes)

    async def undrain(self, backend: BackendName, *, by: str = "") -> None:
        await self._override(backend, override_change("undrain", boot_time()), by)

    async def disable(self, backend: BackendName, *, by: str = "", yes: bool = False) -> None:
        await self._override(backend, override_change("disable", boot_time()), by, yes)

    async def enable(self, backend: BackendName, *, by: str = "") -> None:
        await self._override(backend, override_change("enable", boot_time()), by)

    async def set_weight(
        self, backend: BackendName, weight: int | None, *, by: str = "", yes: bool = False
    ) -> None:
        change = override_change("weight", boot_time(), weight=weight)
        await self._override(backend, change, by, yes)
        shown = "the configuration's" if weight is None else str(weight)
        self._components.events.add(
            EventKind.WEIGHT_SET, "/".join(backend), f"weight: {shown}", by=by
        )

    async def apply(self, source: bytes | None, order: Order) -> ApplyOutcome:
        return await self._components.loop.apply(source, order)

    async def confirm(self, by: str) -> None:
        await self._components.loop.confirm(by)

    async def rollback(self, number: int | None, by: str) -> Rollback:
        loop = self._components.loop
        running = self._configuration().source
        if number is None and await loop.go_back(by):
            entries = await self.history()
            return await self._rolled_back(entries[-1].number if entries else 0, running)
        entry = await asyncio.to_thread(self._entry, number)
        text = await asyncio.to_thread(self._store.past_configuration, entry.number)
        # What was accepted once, SSH port and all, may come back without a question.
        order = Order(by, f"rollback to {entry.number}", force=True, yes=True)
        outcome = await loop.apply(text, order)
        if outcome.problems:
            name = f"configuration {entry.number}"
            raise RefusedError(tuple(each.describe(name) for each in outcome.problems))
        return await self._rolled_back(entry.number, running)

    async def _rolled_back(self, number: int, before: str) -> Rollback:
        # A file that was saved a moment ago has not been looked at yet.
        await self._components.loop.look_at_file()
        now = self._components.loop.snapshot
        configuration, file = now.configuration, self._components.watch.path
        changed = configuration is not None and configuration.source != before
        return Rollback(number, changed, str(file), now.file.differs_since is not None)

    async def history(self) -> tuple[Entry, ...]:
        return await asyncio.to_thread(self._store.history)

    async def diff(self, number: int | None) -> str:
        running = self._configuration().source

        def compare() -> str:
            entry = self._entry(number)
            text = self._store.past_configuration(entry.number).decode(errors="replace")
            return redacted_diff(text, running, f"configuration {entry.number}", "running")

        return await asyncio.to_thread(compare)

    def _entry(self, number: int | None) -> Entry:
        running = digest_of(self._configuration().source.encode())
        try:
            return find_entry(self._store.history(), number, running)
        except LookupError as error:
            raise RefusedError((str(error.args[0]),)) from None

    async def plan(self, source: bytes | None, force: bool, *, file: bool = False) -> ApplyOutcome:
        self._configuration()
        if file and source is None:
            found = await asyncio.to_thread(self._components.watch.read)
            if isinstance(found, str):
                return ApplyOutcome(problems=(PlacedProblem(found),))
            source = found
        return cast(ApplyOutcome, await self._readers.ask(PlanRequest(source, force)))

    async def metrics(self) -> bytes:
        return cast(bytes, await self._readers.ask(MetricsRequest()))

    async def count_connections(self, limit: float) -> Mapping[BackendKey, int] | None:
        """Connections by service and Backend.key; None if that takes over ``limit`` seconds."""
        try:
            found = await self._readers.ask(CountRequest(limit))
            return cast("Mapping[BackendKey, int] | None", found)
        except KernelError:
            return None

    async def sample(self) -> None:
        """Has the counters read, from which the next status tells rates.

        Not of a large configuration, for which a process would have to stay: there every status
        and every scrape of the metrics is a reading. Raises KernelError.
        """
        configuration = self._components.loop.snapshot.configuration
        if configuration is not None and not is_large_config(configuration.config):
            await self._readers.ask(SampleRequest())

    async def compare(self) -> Comparison:
        """Whether the kernel is as the last change left it. Raises KernelError and StateError."""
        return cast(Comparison, await self._readers.ask(CompareRequest()))

    def _configuration(self) -> LoadedConfig:
        snapshot = self._components.loop.snapshot
        if snapshot.configuration is None:
            last = snapshot.last_cycle
            why = snapshot.deferred or (last.error if last is not None else "")
            raise BusyError(
                f"the daemon has no configuration yet: {why or 'it is starting; try again'}"
            )
        return snapshot.configuration

    async def _override(
        self, backend: BackendName, change: OverrideChange, by: str, yes: bool = True
    ) -> None:
        find_backend(self._configuration().config, backend)
        await self._components.loop.override(backend, change, by=by, yes=yes)

    def _view(self, request: Request) -> Callable[[], View]:
        """Takes what only the event loop may ask for; the rest is done in the reader's thread."""
        components = self._components
        snapshot, findings = components.loop.snapshot, components.checks.findings()
        restarts, late = components.supervisor.restarts, components.checker.lateness()
        durations = components.checker.probe_durations()
        listed, applied = components.checker.listed(), snapshot.applied
        counters = components.counters()

        if isinstance(request, CountRequest):
            # Only the numbers in use count: a process that counts need not know the configuration.
            return lambda: View(
                NO_CONFIGURATION, 0.0, self._facts(Snapshot()), remembered=snapshot.remembered
            )

        counted = isinstance(request, MetricsRequest)

        def make() -> View:
            took = durations if counted else {}
            return View(
                configuration=snapshot.configuration or NO_CONFIGURATION,
                now=boot_time(),
                facts=self._facts(snapshot),
                statuses=without_route(
                    snapshot.statuses.of, () if applied is None else applied.unreachable
                ),
                panicking=snapshot.statuses.panicking,
                findings=findings,
                overrides=snapshot.overrides,
                entered=snapshot.entered,
                waiting=snapshot.waiting,
                shares=snapshot.shares,
                connections=snapshot.connections,
                remembered=snapshot.remembered,
                revision=None if applied is None else applied.receipt.revision,
                probes=self._probes.read(listed) if counted else {},
                cycles=snapshot.cycles,
                lateness=LatenessStatistics(late.starts, late.seconds, late.worst),
                durations={
                    name: DurationStatistics(each.cumulative, each.seconds)
                    for name, each in took.items()
                },
                restarts=restarts,
                counters=counters,
            )

        return make

    def _facts(self, snapshot: Snapshot) -> DaemonFacts:
        path, deferred = self._components.watch.path, snapshot.deferred
        tentative = snapshot.tentative
        waiting = (f"{path} is not taken yet: {deferred}",) if deferred else ()
        return DaemonFacts(
            pid=os.getpid(),
            started=self._started,
            file=path,
            accepted_at=snapshot.accepted_at,
            refused=snapshot.refused,
            deferred=deferred,
            differs_since=None if deferred else snapshot.file.differs_since,
            confirm_until=None if tentative is None else tentative.until_wall,
            problems=waiting + snapshot.problems,
            digest=self._digest_of(snapshot.configuration),
            last_cycle=snapshot.last_cycle,
        )

    def _digest_of(self, configuration: LoadedConfig | None) -> str | None:
        if configuration is None:
            return None
        known, digest = self._digest
        if known is not configuration:
            digest = digest_of(configuration.source.encode())
            self._digest = (configuration, digest)
        return digest
