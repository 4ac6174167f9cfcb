"""A daemon without a kernel: what its clients see of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support.builders import make_backend, make_config, make_service, trace_flow
from tula.config.excerpt import backend_excerpt
from tula.config.redact import redact
from tula.engine.backend_view import BackendView, view_backend
from tula.engine.control import (
    ApplyOutcome,
    ConditionError,
    ConfigurationText,
    Cycle,
    DaemonFacts,
    LossError,
    Match,
    Order,
    Overridden,
    Rollback,
    Stood,
    find_backend,
)
from tula.engine.history import Entry, digest_of
from tula.engine.kernel_state import KernelState
from tula.engine.overrides import changed_overrides, override_change
from tula.engine.own_view import OwnState, describe_own, find_places
from tula.engine.peer_view import View, describe_details, digest_of_details
from tula.engine.persistent_clients import (
    Cleared,
    chosen_scopes,
    describe_clients,
    forgets_all,
)
from tula.engine.statistics import CycleOutcome, Statistics
from tula.engine.status import describe_status
from tula.engine.steps import render_steps
from tula.metrics.render import render_metrics
from tula.model.client_scopes import HeldClient, HeldClients
from tula.model.config import IPAddress
from tula.model.event import Event, EventKind, EventPage, choose_events
from tula.model.flow import Flow
from tula.model.health import BackendName, BackendStatus, Health, Override, State
from tula.model.persistence import Persistence
from tula.plan.backend_status import plan_backend_statuses
from tula.plan.trace import Trace

CONFIG = make_config(make_service(backends=[make_backend(1), make_backend(2)]))
PERSISTENT = make_config(replace(CONFIG.services[0], persistence=Persistence(300.0)))
"""The same with persistence: what is asked of clients is of this one."""
NOW = 1_800_000_000.0
STEP = {"verb": "change", "what": "map", "name": "slots_1_4093", "detail": "elements: 7 changed"}


def make_facts() -> DaemonFacts:
    """A daemon in good order."""
    cycle = Cycle(NOW, 0.25, CycleOutcome.UNCHANGED)
    return DaemonFacts(
        4711, NOW - 60, Path("/etc/tula/tula.yaml"), accepted_at=NOW - 50, last_cycle=cycle
    )


def make_events(count: int) -> list[Event]:
    """Events 1 to ``count``."""
    return [
        Event(n, NOW + n, EventKind.BACKEND_DOWN, "web/b1", f"happening {n}", "refused")
        for n in range(1, count + 1)
    ]


@dataclass(frozen=True)
class FakeClients:
    """See ``ClientControl``."""

    control: FakeControl

    async def list(self, service: str | None, client: IPAddress | None, limit: int) -> bytes:
        self.control._may()
        (scope,) = chosen_scopes(PERSISTENT, service)
        asked = [each for each in self.control.held if client in (None, each)]
        entries = tuple(
            HeldClient(scope.services, scope.client(each), self.control.held[each], 250.0)
            for each in asked[:limit]
        )
        held = HeldClients(entries, len(asked) > limit)
        return json.dumps(describe_clients(PERSISTENT, held)).encode()

    async def forget(
        self,
        service: str | None,
        client: IPAddress | None,
        *,
        yes: bool = False,
        dry: bool = False,
    ) -> Cleared:
        self.control._may()
        scopes = chosen_scopes(PERSISTENT, service)
        if client is None and not yes:
            raise LossError((forgets_all(scopes),))
        gone = [each for each in self.control.held if client in (None, each)]
        if not dry:
            self.control.done.append(("forget", service, client))
            self.control.held = {a: b for a, b in self.control.held.items() if a not in gone}
        return Cleared(len(gone), scopes)


@dataclass
class FakeControl:
    """Remembers what it was asked to change; ``error`` is raised by everything, once set."""

    loss: tuple[str, ...] = ()
    accepted: tuple[Entry, ...] = ()
    by: str = ""
    planned: tuple[object, ...] = ()
    outcome: ApplyOutcome = field(default_factory=lambda: ApplyOutcome(True, render_steps([STEP])))
    facts: DaemonFacts = field(default_factory=make_facts)
    statuses: dict[BackendName, BackendStatus] = field(default_factory=dict)
    now: float = NOW
    overrides: dict[BackendName, Override] = field(default_factory=dict)
    findings: dict[BackendName, Health] = field(default_factory=dict)
    connections: dict[BackendName, int] | None = None
    panics: Sequence[str] = ()
    kernel: KernelState = field(default_factory=KernelState)
    happened: list[Event] = field(default_factory=list)
    epoch: str = "first"
    text: str = 'interfaces: [eth0]\nservices: {}\nheaders: {Cookie: "secret"}\n'
    error: Exception | None = None
    done: list[tuple[object, ...]] = field(default_factory=list)
    everywhere: Any = None
    notifications: Any = None
    held: dict[IPAddress, str] = field(default_factory=dict)
    """The clients of web, and their backends by key"""

    @property
    def clients(self) -> FakeClients:
        return FakeClients(self)

    def _may(self) -> None:
        if self.error is not None:
            raise self.error

    def _change(self, verb: str, backend: BackendName, *rest: object, by: str = "") -> None:
        self._may()
        self.by = by
        find_backend(CONFIG, backend)
        self.done.append((verb, backend, *rest))

    async def status(self) -> bytes:
        self._may()
        answer = describe_status(
            CONFIG,
            {},
            {},
            statuses=self.statuses,
            findings=self.findings,
            connections=self.connections,
            panics=self.panics,
            daemon=self.facts,
            kernel=self.kernel,
        )
        return json.dumps(answer).encode()

    async def backend(self, backend: BackendName) -> BackendView:
        self._may()
        configured = find_backend(CONFIG, backend)
        findings = {backend: Health(up=True, since=NOW), **self.findings}
        planned = plan_backend_statuses(CONFIG, findings, self.overrides, self.now).of
        status = self.statuses.get(backend, planned[backend])
        override = self.overrides.get(backend, Override())
        return view_backend(backend, configured, status, override, self.now, self.connections)

    async def excerpt(self, name: str) -> str | None:
        self._may()
        return backend_excerpt(CONFIG, name)

    async def own_view(self, name: str) -> bytes | None:
        self._may()
        places = find_places(CONFIG).get(name)
        if places is None:
            return None
        planned = plan_backend_statuses(CONFIG, {}, self.overrides, self.now).of
        state = OwnState(CONFIG, planned, self.overrides, {}, self.connections, self.now)
        return json.dumps(describe_own(name, places, state)).encode()

    async def peer_view(self, known: str = "", notified: str = "") -> bytes:
        self._may()
        statuses = plan_backend_statuses(CONFIG, self.findings, self.overrides, self.now)
        details = describe_details(CONFIG, statuses.of, self.overrides)
        digest = digest_of_details(details.describe())
        view = View(
            *("lb1", "1.0", 1, "start", "boot", self.now),
            digest=self.digest,
            overrides_digest=details.overrides_digest,
            details_digest=digest,
            details=details,
        )
        return json.dumps(view.describe(known, notified)).encode()

    async def stand_by(self, standby: bool, *, by: str = "", dry: bool = False) -> Stood:
        self._may()
        if not dry:
            self.by = by
            self.done.append(("stand_by", standby))
        return Stood(standby, True, "active", ("lb2",))

    async def share_flows(self) -> None:
        self._may()
        self.done.append(("share_flows",))

    async def _override(
        self,
        verb: str,
        backend: BackendName,
        by: str,
        yes: bool = True,
        dry: bool = False,
        **given: Any,
    ) -> Overridden:
        self._may()
        find_backend(CONFIG, backend)
        self._insist(yes)
        before, kept, known = await self.backend(backend), self.overrides, dict(self.statuses)
        change = override_change(verb, self.now, **given)
        self.overrides = changed_overrides(self.overrides, backend, change)
        self.statuses.pop(backend, None)
        after = await self.backend(backend)
        if dry:
            self.overrides, self.statuses = kept, known
        else:
            self._change(verb, backend, *given.values(), by=by)
        return Overridden(before, after)

    async def next_event(self, after: int) -> None:
        while not any(event.number > after for event in self.happened):
            await asyncio.sleep(0.005)

    async def configuration(self, *, hidden: bool) -> ConfigurationText:
        self._may()
        return ConfigurationText(redact(self.text) if hidden else self.text, self.digest)

    @property
    def digest(self) -> str:
        return digest_of(self.text.encode())

    def _require(self, match: Match) -> None:
        if match is not None and self.digest not in match:
            raise ConditionError(self.digest)

    async def events(self, after: int | None, limit: int, epoch: str | None = None) -> EventPage:
        self._may()
        if epoch not in (None, self.epoch):
            after = 0
        return EventPage(self.epoch, tuple(choose_events(self.happened, after, limit)))

    async def trace(self, flow: Flow, datagram: int | None) -> Trace:
        self._may()
        return trace_flow(CONFIG, flow, later_fragment=datagram is not None)

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
        given = {"deadline": deadline} | ({"release": True} if release else {})
        done = await self._override("drain", backend, by, yes, dry, **given)
        if not dry and not self.overrides[backend].disable:
            self.statuses[backend] = BackendStatus(State.DRAINING, 0, True, "drained")
        return done

    async def undrain(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        return await self._override("undrain", backend, by, dry=dry)

    async def disable(
        self, backend: BackendName, *, by: str = "", yes: bool = False, dry: bool = False
    ) -> Overridden:
        return await self._override("disable", backend, by, yes, dry)

    async def enable(self, backend: BackendName, *, by: str = "", dry: bool = False) -> Overridden:
        return await self._override("enable", backend, by, dry=dry)

    async def set_weight(
        self,
        backend: BackendName,
        weight: int | None,
        *,
        by: str = "",
        yes: bool = False,
        dry: bool = False,
    ) -> Overridden:
        return await self._override("weight", backend, by, yes, dry, weight=weight)

    def _insist(self, yes: bool) -> None:
        if self.loss and not yes:
            raise LossError(self.loss)

    async def apply(self, source: bytes | None, order: Order) -> ApplyOutcome:
        self._may()
        self._require(order.match)
        self._insist(order.yes)
        if not order.dry:
            self.by = order.by
            self.done.append(("apply", source, replace(order, by="")))
        return replace(self.outcome, digest=digest_of(source or b""))

    async def confirm(self, by: str, *, match: Match = None, dry: bool = False) -> str:
        self._may()
        self._require(match)
        if not dry:
            self.done.append(("confirm",))
            self.by = by
        return self.digest

    async def rollback(
        self, number: int | str | None, by: str, *, match: Match = None, dry: bool = False
    ) -> Rollback:
        self._may()
        self._require(match)
        if not dry:
            self.by = by
            self.done.append(("rollback", number))
        return Rollback(number or 1, True, str(self.facts.file), True, digest=self.digest)

    async def history(self) -> tuple[Entry, ...]:
        self._may()
        return self.accepted

    async def diff(self, number: int | None) -> str:
        self._may()
        return f"--- configuration {number or 1}\n+++ running\n"

    async def plan(self, source: bytes | None, force: bool, *, file: bool = False) -> ApplyOutcome:
        self._may()
        self.planned = (source, force, file)
        return self.outcome

    async def metrics(self) -> bytes:
        self._may()
        return render_metrics(Statistics())
