"""``Control`` over the daemon in this process."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import cast

from tula.config.excerpt import backend_excerpt
from tula.config.load import LoadedConfig
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
from tula.daemon.apart import hide_secrets
from tula.daemon.checks import ProbeTable
from tula.daemon.components import Components
from tula.daemon.local_clients import LocalClients
from tula.daemon.own_views import OwnViews
from tula.daemon.ownership import source_of
from tula.daemon.past_configurations import PastConfigurations
from tula.daemon.problems import place_problems, read_configuration
from tula.daemon.readers import MakeAdapters, Readers, is_large_config
from tula.daemon.snapshot import Snapshot
from tula.daemon.standing_by import stand_by
from tula.engine.backend_view import BackendView, view_backend
from tula.engine.control import (
    ApplyOutcome,
    BusyError,
    ConfigurationText,
    DaemonFacts,
    Match,
    Notifications,
    Order,
    Overridden,
    Rollback,
    Stood,
    find_backend,
)
from tula.engine.everywhere import JointControl
from tula.engine.history import Entry, digest_of
from tula.engine.overrides import OverrideChange, override_change
from tula.engine.peer_facts import BalancerFacts
from tula.engine.peer_view import flow_counts
from tula.engine.persistent_clients import ClientControl
from tula.engine.statistics import DurationStatistics, LatenessStatistics
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.errors import KernelError
from tula.model.event import Event, EventKind, EventPage
from tula.model.flow import Flow
from tula.model.health import BackendName, Override
from tula.model.problem import PlacedProblem, ProblemsError
from tula.model.stats import BackendKey, Count
from tula.plan.backend_status import without_route
from tula.plan.trace import Trace

_IN_SYNC = b'"in_sync": true'
_TRIES = 5
"""Looks at a kernel that the writer is just changing, before it is said to be out of sync."""
_PAUSE = 0.1


class LocalControl:
    """See ``Control`` for what each method promises."""

    def __init__(self, components: Components, make_adapters: MakeAdapters, store: Store) -> None:
        """``make_adapters`` makes the kernel anew, for the readers."""
        self._components = components
        self._started = time.time()
        self._digest: tuple[LoadedConfig | None, str] = (None, "")
        self._own_views = OwnViews()
        self._probes = ProbeTable()
        self._readers = Readers(make_adapters, self._view)
        self.everywhere: JointControl | None = None
        self.clients: ClientControl = LocalClients(components, self._readers, self._configuration)
        self.notifications: Notifications | None = components.notifier
        self._past = PastConfigurations(store, components.loop, components.watch)

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
        status = snapshot.statuses.of.get(backend)
        if status is None:
            raise BusyError("the daemon is starting; try again")
        override = snapshot.overrides.get(backend, Override())
        held = snapshot.connections
        return view_backend(backend, configured, status, override, boot_time(), held)

    async def peer_view(self, known: str = "", notified: str = "") -> bytes:
        peers = self._components.peers
        if peers is None:
            raise BusyError("the daemon is starting; try again")
        return json.dumps((await peers.own.make()).describe(known, notified)).encode()

    async def stand_by(self, standby: bool, *, by: str = "", dry: bool = False) -> Stood:
        self._configuration()
        return await stand_by(self._components, standby, by, dry)

    async def share_flows(self) -> None:
        if self._components.peers is not None:
            await self._components.peers.share_again()

    async def excerpt(self, name: str) -> str | None:
        return await asyncio.to_thread(backend_excerpt, self._configuration().config, name)

    async def own_view(self, name: str) -> bytes | None:
        snapshot = self._components.loop.snapshot
        return await self._own_views.view(name, self._configuration(), snapshot)

    async def configuration(self, *, hidden: bool) -> ConfigurationText:
        running = self._configuration()
        digest = self._digest_of(running) or ""
        if not hidden:
            return ConfigurationText(running.source, digest)
        return ConfigurationText(await asyncio.to_thread(hide_secrets, running.source), digest)

    async def next_event(self, after: int) -> None:
        log, loop = self._components.events, asyncio.get_running_loop()
        there = asyncio.Event()

        def tell(_: Event) -> None:
            with suppress(RuntimeError):  # the daemon ends
                loop.call_soon_threadsafe(there.set)

        log.followers.append(tell)
        try:
            if log.last_number <= after:
                await there.wait()
        finally:
            log.followers.remove(tell)

    async def events(self, after: int | None, limit: int, epoch: str | None = None) -> EventPage:
        return self._components.events.page(after, limit, epoch)

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        if self._components.loop.snapshot.configuration is None:
            raise BusyError("the daemon is starting; try again")
        return cast(Trace, await self._readers.ask(TraceRequest(flow, datagram)))

    async def drain(
        self,
        backend: BackendName,
        deadline: float | None,
        *,
        release: bool = False,
        by: str = "",
        yes: bool = False,
        dry: bool = False,
    ) -> Overridden:
        change = override_change("drain", boot_time(), deadline=deadline, release=release)
        return await self._override(backend, change, by, yes, dry)

    async def undrain(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        change = override_change("undrain", boot_time())
        return await self._override(backend, change, by, True, dry)

    async def disable(
        self, backend: BackendName, *, by: str = "", yes: bool = False, dry: bool = False
    ) -> Overridden:
        change = override_change("disable", boot_time())
        return await self._override(backend, change, by, yes, dry)

    async def enable(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        change = override_change("enable", boot_time())
        return await self._override(backend, change, by, True, dry)

    async def set_weight(
        self,
        backend: BackendName,
        weight: int | None,
        *,
        by: str = "",
        yes: bool = False,
        dry: bool = False,
    ) -> Overridden:
        change = override_change("weight", boot_time(), weight=weight)
        done = await self._override(backend, change, by, yes, dry)
        if not dry:
            shown = "the configuration's" if weight is None else str(weight)
            self._components.events.add(
                EventKind.WEIGHT_SET, "/".join(backend), f"weight: {shown}", by=by
            )
        return done

    async def apply(self, source: bytes | None, order: Order) -> ApplyOutcome:
        if not order.dry:
            return await self._components.loop.apply(source, order)
        running = self._configuration()
        text = source
        if text is None:
            found = await asyncio.to_thread(self._components.watch.read)
            if isinstance(found, str):
                return ApplyOutcome(problems=(PlacedProblem(found),))
            text = found
        sent = source is not None and order.how.startswith("apply")
        offer = await asyncio.to_thread(read_configuration, text, running, sent)
        if not isinstance(offer, LoadedConfig):
            return ApplyOutcome(problems=offer)
        try:
            await self._components.loop.check(offer, replace(order, from_file=source is None))
        except ProblemsError as error:
            return ApplyOutcome(problems=place_problems(error, offer.positions))
        force = order.force or offer is running
        return cast(ApplyOutcome, await self._readers.ask(PlanRequest(text, force)))

    async def confirm(self, by: str, *, match: Match = None, dry: bool = False) -> str:
        return await self._components.loop.confirm(by, match, dry=dry)

    async def rollback(
        self, number: int | str | None, by: str, *, match: Match = None, dry: bool = False
    ) -> Rollback:
        order = Order(by, force=True, yes=True, match=match, dry=dry)
        return await self._past.rollback(number, order, self._configuration(), self.apply)

    async def history(self) -> tuple[Entry, ...]:
        return await self._past.entries()

    async def diff(self, number: int | None) -> str:
        return await self._past.diff(number, self._configuration().source)

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

    async def count_connections(
        self, limit: float, empty: frozenset[BackendKey]
    ) -> Mapping[BackendKey, int] | None:
        """By service and Backend.key: see ``DataPath.connections``."""
        try:
            found = await self._readers.ask(CountRequest(limit, empty))
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
            found = await self._readers.ask(SampleRequest())
            if self._components.full is not None:
                self._components.full.note(cast("Mapping[str, Count]", found), time.monotonic())
            if self._components.peers is not None:
                self._components.peers.own.flows = flow_counts(cast("Mapping[str, Count]", found))

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
        self, backend: BackendName, change: OverrideChange, by: str, yes: bool, dry: bool
    ) -> Overridden:
        configured = find_backend(self._configuration().config, backend)
        loop, before = self._components.loop, await self.backend(backend)
        if not dry:
            await loop.override(backend, change, by=by, yes=yes)
            return Overridden(before, await self.backend(backend))
        override, status = await loop.preview(backend, change, yes=yes)
        if status is None:
            return Overridden(before, before)
        now, held = boot_time(), loop.snapshot.connections
        return Overridden(before, view_backend(backend, configured, status, override, now, held))

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
        network = self._components.network()
        waiting = (f"{path} is not taken yet: {deferred}",) if deferred else ()
        peers, notifier = self._components.peers, self._components.notifier
        return DaemonFacts(
            pid=os.getpid(),
            started=self._started,
            file=path,
            accepted_at=snapshot.accepted_at,
            refused=snapshot.refused,
            deferred=deferred,
            source=str(source_of(snapshot.configuration)),
            differs_since=None if deferred else snapshot.file.differs_since,
            confirm_until=None if tentative is None else tentative.until_wall,
            confirm_everywhere=tentative is not None and tentative.joint is not None,
            problems=waiting + snapshot.problems + network.problems + self._components.problems(),
            network=network,
            digest=self._digest_of(snapshot.configuration),
            last_cycle=snapshot.last_cycle,
            balancers=BalancerFacts() if peers is None else peers.facts,
            notify=() if notifier is None else notifier.facts,
        )

    def _digest_of(self, configuration: LoadedConfig | None) -> str | None:
        if configuration is None:
            return None
        known, digest = self._digest
        if known is not configuration:
            digest = digest_of(configuration.source.encode())
            self._digest = (configuration, digest)
        return digest
