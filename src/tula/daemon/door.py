"""The daemon as its faces see it: ``Control``, by the driver and what it drives."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from tula.config.errors import place
from tula.config.load import Document, DocumentError, parse_document
from tula.daemon.checks import Checks
from tula.daemon.driver import Driver
from tula.daemon.figures import make_snapshot
from tula.daemon.held import Held
from tula.daemon.pending import Trigger
from tula.daemon.reconciler import Reconciler
from tula.daemon.watch import FileWatch
from tula.engine.balancer import Balancer
from tula.engine.control import ApplyOutcome, BusyError, DaemonFacts, find_backend
from tula.engine.event_log import EventLog
from tula.engine.figures import Snapshot
from tula.engine.overrides import OverrideChange, override_change
from tula.engine.status import describe_status
from tula.engine.steps import describe_steps
from tula.health.checker import Checker
from tula.kernel.clock import boot_time
from tula.model.errors import KernelError
from tula.model.event import Event, EventKind, choose_events
from tula.model.flow import Flow
from tula.model.health import BackendName, Override
from tula.model.problem import ProblemsError
from tula.plan.trace import Trace


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of."""

    balancer: Balancer
    reconciler: Reconciler
    checker: Checker
    checks: Checks
    driver: Driver
    held: Held
    events: EventLog
    watch: FileWatch


class Door:
    """See ``Control`` for what each method promises."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started = time.time()

    async def status(self) -> dict[str, Any]:
        config, balancer = self._document().config, self._parts.balancer
        findings = self._parts.checks.findings()
        standings = self._parts.reconciler.standings_now(findings)
        facts = self._facts()

        def read() -> dict[str, Any]:
            stats = balancer.stats()
            return describe_status(
                config,
                stats.backends,
                stats.counters,
                stats.tables,
                balancer.endpoints(config),
                standings=standings.of,
                findings=findings,
                held=self._parts.held.counts,
                panics=standings.panicking,
                daemon=facts,
            )

        return await asyncio.to_thread(read)

    async def events(self, after: int | None, limit: int) -> list[Event]:
        return choose_events(self._parts.events.events, after, limit)

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        balancer, config = self._parts.balancer, self._parts.reconciler.effective
        if config is None:
            raise BusyError("the daemon is starting; try again")
        entry = await asyncio.to_thread(lambda: balancer.find_entry(flow, datagram))
        return balancer.trace(config, flow, entry, later_fragment=datagram is not None)

    async def drain(self, backend: BackendName, deadline: float | None) -> None:
        await self._override(backend, override_change("drain", boot_time(), deadline=deadline))

    async def undrain(self, backend: BackendName) -> None:
        await self._override(backend, override_change("undrain", boot_time()))

    async def disable(self, backend: BackendName) -> None:
        await self._override(backend, override_change("disable", boot_time()))

    async def enable(self, backend: BackendName) -> None:
        await self._override(backend, override_change("enable", boot_time()))

    async def set_weight(self, backend: BackendName, weight: int | None) -> None:
        await self._override(backend, override_change("weight", boot_time(), weight=weight))
        shown = "the document's" if weight is None else str(weight)
        self._parts.events.add(EventKind.WEIGHT_SET, "/".join(backend), f"weight: {shown}")

    async def apply(self, source: bytes | None, force: bool) -> ApplyOutcome:
        return await self._parts.driver.offer(source, force)

    async def plan(self, source: bytes | None, force: bool) -> ApplyOutcome:
        findings, reconciler = self._parts.checks.findings(), self._parts.reconciler
        self._document()

        def work() -> ApplyOutcome:
            try:
                change = reconciler.plan(source, findings, force=force)
            except DocumentError as error:
                return ApplyOutcome(
                    problems=tuple(place(p, error.positions) for p in error.problems)
                )
            except ProblemsError as error:
                document = self._document() if source is None else parse_document(source)
                return ApplyOutcome(
                    problems=tuple(place(p, document.positions) for p in error.problems)
                )
            return ApplyOutcome(bool(change), tuple(describe_steps(change)))

        return await self._parts.driver.in_thread(work)

    async def metrics(self) -> Snapshot:
        return await make_snapshot(self._parts)

    def _document(self) -> Document:
        document, last = self._parts.reconciler.document, self._parts.driver.last
        if document is None:
            why = self._parts.reconciler.postponed or (last.error if last is not None else "")
            raise BusyError(f"the daemon has no document yet: {why or 'it is starting; try again'}")
        return document

    async def _override(self, backend: BackendName, change: OverrideChange) -> None:
        """Changes what the operator said of a backend, and waits until the kernel has it."""
        find_backend(self._document().config, backend)
        reconciler, driver = self._parts.reconciler, self._parts.driver

        def remember() -> None:
            old = reconciler.overrides.get(backend, Override())
            reconciler.override(backend, change(old))

        await driver.in_thread(remember)
        result = await driver.settled(Trigger.OVERRIDE)
        if result.error:
            raise KernelError(result.error)

    def _facts(self) -> DaemonFacts:
        parts = self._parts
        return DaemonFacts(
            pid=os.getpid(),
            started=self._started,
            document=parts.watch.path,
            accepted_at=parts.reconciler.accepted_at,
            refused=parts.reconciler.refused,
            problems=_postponed(parts)
            + parts.reconciler.problems
            + parts.checks.problems
            + parts.held.problems,
            last_cycle=parts.driver.last,
        )


def _postponed(parts: Parts) -> tuple[str, ...]:
    """What keeps the file's text from being taken, though there is nothing wrong with it."""
    reason = parts.reconciler.postponed
    return (f"{parts.watch.path} is not taken yet: {reason}",) if reason else ()
