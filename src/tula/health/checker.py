"""Runs all probes in one event loop, and knows how each backend stands."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tula.health.check import Check, FailureKind, Outcome, ProbeView
from tula.health.diagnosis import Send, diagnose
from tula.health.error_log import ErrorLog
from tula.health.machine import advanced, first_due, next_due
from tula.health.pace import Pace
from tula.health.probes import send_probe
from tula.health.resuming import STILL_COMING, Resuming
from tula.health.scheduled import MonitoredBackend, ScheduledProbe, own_addresses
from tula.health.sharing import ProbeKey, by_backend, probe_key, script_environment, similar_key
from tula.health.timing import DurationsByService, Histogram, Lateness, LateStarts, LoopLag
from tula.kernel.probe_sockets import ProbeSockets
from tula.model.health import BackendName, Health, ProbeTarget
from tula.model.monitor import HealthMonitor, HealthPolicy

_DIAGNOSES = 32
"""Diagnoses at a time: a rack that fails must not cause thousands of extra probes."""
_SCRIPTS = 32
"""Programs at a time; those that wait start late, and that is counted."""
_ADVICE = 1.0
"""Seconds between two times that weights and drains of all backends are told of: answers that
differ each time move elements in the kernel no more often."""

ListedProbes = tuple[tuple[ScheduledProbe, tuple[BackendName, ...]], ...]


class Checker:
    """The probes of a daemon. All but ``__init__`` is called in the loop's thread.

    Probes go by the loop's clock, which nobody sets. It stands still while the machine is
    suspended, and so do the probes: intervals and timeouts go on where they were.

    ``on_change`` is called, in the loop and once for all at the same time, when any finding's
    ``up`` changed; ``on_evidence`` when the reason of a backend that is down became known.
    ``send``, ``clock`` (for ``since``) and ``chance`` (random, 0 to 1) are replaced by tests.
    """

    def __init__(
        self,
        sockets: ProbeSockets,
        on_change: Callable[[], None],
        *,
        on_evidence: Callable[[BackendName], None] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        send: Send | None = None,
    ) -> None:
        self._sockets = sockets
        self._on_change = on_change
        self._on_evidence = on_evidence
        self._clock = clock
        self._chance = chance
        self._send = send or self._send_by_socket
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probes: dict[ProbeKey, ScheduledProbe] = {}
        self._listed: ListedProbes | None = None
        self._backends: dict[BackendName, MonitoredBackend] = {}
        self._findings: dict[BackendName, Health] = {}
        self._touched: set[MonitoredBackend] = set()
        self._notified = True
        self._decided: float | None = None
        self._resuming = Resuming()
        self._late = LateStarts()
        self._lag = LoopLag() if send is None else None
        self._diagnoses = asyncio.Semaphore(_DIAGNOSES)
        self._scripts = asyncio.Semaphore(_SCRIPTS)
        self._durations = DurationsByService()
        self._errors = ErrorLog()
        self._advice = Pace(self._notify, _ADVICE)

    @property
    def errors(self) -> int:
        """How many errors of Tula's own came up in probes; each probe went on after them."""
        return self._errors.count

    def set_checks(
        self,
        checks: Iterable[Check],
        policies: Mapping[str, HealthPolicy],
        adopted: Mapping[BackendName, Health],
    ) -> None:
        """Replaces what is probed.

        Probes that stay (the same settings and target, ``priority`` aside) keep their state and
        their schedule; those with an ``obstacle`` are not sent. A backend whose probes change
        keeps its own until they have decided; a new one has that of ``adopted``. ``policies`` are
        by service.
        """
        now = self._clock()
        self._listed = None
        before, self._probes = self._probes, {}
        known, self._backends = self._backends, {}
        unused = {id(probe): probe for probe in before.values()}
        similar: dict[ProbeKey, ScheduledProbe] | None = None
        fresh: list[ScheduledProbe] = []
        wanted: dict[BackendName, dict[int, list[ScheduledProbe]]] = {}
        for check in checks:
            key = probe_key(check)
            probe = self._probes.get(key)
            if probe is None:
                probe = before.get(key)
                if probe is None:
                    similar = by_backend(before.values()) if similar is None else similar
                    probe = similar.get(similar_key(check.backend, check))
                # One that two backends shared may be two now, and goes on as one of them.
                if probe is None or unused.pop(id(probe), None) is None:
                    other, probe = probe, ScheduledProbe(check)
                    if other is not None:
                        probe.follow(other)
                    fresh.append(probe)
                probe.check = check
                probe.backends = []
                self._probes[key] = probe
            if check.settings.advises and probe.advice is None:
                before_it = known.get(check.backend) or adopted.get(check.backend)
                probe.seed(before_it.advice if before_it is not None else ())
            targets = wanted.setdefault(check.backend, {}).setdefault(check.monitor, [])
            if probe not in targets:
                targets.append(probe)
        for probe in unused.values():
            probe.stop()
        self._heed_obstacles(fresh, known)
        for name, monitors in wanted.items():
            policy = policies.get(name[0], HealthPolicy())
            start = self._standing(known.get(name), monitors) or adopted.get(name)
            backend = MonitoredBackend(name, monitors, policy, start, now)
            self._backends[name] = backend
            for probe in {id(p): p for targets in monitors.values() for p in targets}.values():
                probe.backends.append(backend)
            old = known.get(name)
            backend.recount(now)
            if old is not None and (old.up is not backend.up or old.advice != backend.advice):
                self._notify()
        self._touched.clear()
        self._findings = {name: backend.finding() for name, backend in self._backends.items()}
        self._durations.restart(name[0] for name in self._backends)
        for probe in self._probes.values():
            services = frozenset(backend.name[0] for backend in probe.backends)
            probe.durations = self._durations.of(services)
        self._schedule(fresh)

    def findings(self) -> Mapping[BackendName, Health]:
        """How the backends stand by their monitors."""
        for backend in self._touched:
            self._findings[backend.name] = backend.finding()
        self._touched.clear()
        return self._findings.copy()

    def take_decided(self) -> float | None:
        """When the first change was decided since this was last asked, by time.monotonic."""
        decided, self._decided = self._decided, None
        return decided

    def describe(self) -> list[ProbeView]:
        """How each probe stands."""
        return [probe.view() for probe in self._probes.values()]

    def listed(self) -> ListedProbes:
        """All probes, with the backends that each is for; the same object until ``set_checks``.

        Another thread may read the probes' ``outcome``, ``state`` and ``failed``.
        """
        if self._listed is None:
            self._listed = tuple(
                (probe, tuple(dict.fromkeys(backend.name for backend in probe.backends)))
                for probe in self._probes.values()
            )
        return self._listed

    def lateness(self) -> Lateness:
        """How late probes started."""
        return self._late.read(self._loop.time() if self._loop is not None else 0.0)

    def probe_durations(self) -> Mapping[str, Histogram]:
        """How long the probes of each service took, by its name.

        Those that could not be sent do not count; one that timed out counts with its timeout. The
        totals of a service never fall as long as it has checks.
        """
        return self._durations.read()

    async def run(self) -> None:
        """Probes until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._lag is not None:
            self._lag.start(self._loop)
        self._schedule(list(self._probes.values()))
        try:
            await self._loop.create_future()
        finally:
            self._loop = None
            if self._lag is not None:
                self._lag.stop()
            self._advice.stop()
            probes = self._probes.values()
            for probe in probes:
                probe.stop()
            tasks = [task for p in probes for task in (p.task, p.diagnosing) if task is not None]
            await asyncio.gather(*tasks, return_exceptions=True)

    def _standing(
        self, old: MonitoredBackend | None, monitors: dict[int, list[ScheduledProbe]]
    ) -> Health | None:
        """What is known of a backend already, if it is the same server still."""
        if old is None or old.up is None:
            return None
        checks = (probe.check for targets in monitors.values() for probe in targets)
        now, before = own_addresses(checks), old.addresses()
        return None if now and before and not now & before else old.finding()

    def _heed_obstacles(
        self, fresh: list[ScheduledProbe], known: Mapping[BackendName, MonitoredBackend]
    ) -> None:
        now = self._loop.time() if self._loop is not None else 0.0
        for probe in self._probes.values():
            probe.heed_obstacle(now)
        for probe in fresh:
            # One that had no address to ask from meanwhile was not there.
            backend = known.get(probe.check.backend)
            if not probe.paused and backend is not None and backend.was_impeded(now):
                probe.resumed = now

    def _schedule(self, fresh: list[ScheduledProbe]) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        for position, probe in enumerate(fresh):
            due = first_due(now, position, len(fresh), probe.check.settings, self._chance())
            self._at(due, probe)

    def _at(self, due: float, probe: ScheduledProbe) -> None:
        if self._loop is not None:
            probe.due = due
            probe.timer = self._loop.call_at(due, self._start, probe)

    def _start(self, probe: ScheduledProbe) -> None:
        if self._loop is not None:
            probe.task = self._loop.create_task(self._run(probe))

    async def _run(self, probe: ScheduledProbe) -> None:
        """Sends a probe and takes its outcome; whatever comes of that, it is due again."""
        try:
            if probe.check.settings.type == "script":
                async with self._scripts:
                    await self._probe(probe)
            else:
                await self._probe(probe)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled the probe: something in it raised this as any other error.
            self._errors.record("/".join(probe.check.backend), error)
        except Exception as error:
            self._errors.record("/".join(probe.check.backend), error)
        now, settings = asyncio.get_running_loop().time(), probe.check.settings
        self._at(next_due(probe.due, now, probe.state, settings, self._chance()), probe)

    async def _probe(self, probe: ScheduledProbe) -> None:
        now = asyncio.get_running_loop().time()
        probe.late = max(0.0, now - probe.due)
        self._late.record(probe.late, now)
        check, pauses = probe.check, probe.pauses
        if check.obstacle:
            return
        outcome = await self._safely(check.settings, check.target, script_environment(check))
        if probe.pauses != pauses:
            return  # what was lost on the way says nothing of the backend
        state = probe.state
        try:
            self._take(probe, outcome)
        except Exception:
            # The next outcome decides in its place: backends may not know of this one.
            probe.state = state
            raise

    def _take(self, probe: ScheduledProbe, outcome: Outcome) -> None:
        before, shown = probe.up, probe.shown()
        outcome = self._judged(probe, outcome)
        probe.outcome = outcome
        if outcome.passed is not None:
            probe.state = advanced(probe.state, outcome.passed, probe.check.settings)
            probe.failed += not outcome.passed
            if probe.durations is not None:
                probe.durations.record(outcome.seconds)
        if probe.heed(outcome) and self._loop is not None:
            self._advice.ask(self._loop)
        if probe.up is not before:
            now = self._clock()
            for backend in probe.backends:
                if backend.recount(now):
                    self._notify()
        if probe.state.up:
            probe.forget_diagnosis()
        elif self._loop is not None and probe.begin_diagnosis(self._loop.time()):
            probe.diagnosing = self._loop.create_task(self._diagnose(probe, outcome))
        if probe.shown() != shown:
            self._touch(probe)

    def _judged(self, probe: ScheduledProbe, outcome: Outcome) -> Outcome:
        """The outcome, which counts neither way where the network may not be back yet."""
        outcome = probe.without_drain(outcome)
        now = self._loop.time() if self._loop is not None else 0.0
        services = {backend.name[0] for backend in probe.backends}
        if outcome.passed:
            self._resuming.passed(services, now)
        if probe.resumed is None or outcome.passed is None:
            return outcome
        lost = outcome.failure in (FailureKind.SILENT, FailureKind.UNREACHABLE)
        if outcome.passed or not lost or self._resuming.counts(services, probe.resumed, now):
            probe.resumed = None
            return outcome
        return replace(outcome, passed=None, evidence=f"{outcome.evidence}; {STILL_COMING}")

    def _touch(self, probe: ScheduledProbe) -> None:
        for backend in probe.backends:
            backend.forget_finding()
        self._touched.update(probe.backends)

    async def _diagnose(self, probe: ScheduledProbe, failed: Outcome) -> None:
        try:
            async with self._diagnoses:
                await self._explain(probe, failed)
        except Exception as error:
            self._errors.record("/".join(probe.check.backend), error)
        finally:
            probe.diagnosing = None

    async def _explain(self, probe: ScheduledProbe, failed: Outcome) -> None:
        check, known = probe.check, probe.diagnosis
        if check.direct is None or probe.state.up:
            return
        found = await diagnose(check.settings, check.target, check.direct, failed, self._safely)
        probe.end_diagnosis(found)
        self._touch(probe)
        if probe.diagnosis in ("", known) or probe.state.up:
            return
        if self._on_evidence is not None:
            for backend in probe.backends:
                if backend.up is False:
                    self._on_evidence(backend.name)

    async def _safely(
        self, settings: HealthMonitor, target: ProbeTarget, environment: Mapping[str, str]
    ) -> Outcome:
        """An error in the probe's own code must not end it, nor count against a backend."""
        try:
            return await self._send(settings, target, environment)
        except Exception as error:
            self._errors.record(f"{settings.type} to {target.address}", error)
            return Outcome(
                None, f"{settings.type} to {target.address}: the check failed: {error!r}"
            )

    async def _send_by_socket(
        self, settings: HealthMonitor, target: ProbeTarget, environment: Mapping[str, str]
    ) -> Outcome:
        lost = self._lag.lost if self._lag is not None else lambda: 0.0
        return await send_probe(settings, target, self._sockets, environment, lost)

    def _notify(self) -> None:
        """Once for all changes of this iteration of the loop."""
        if self._loop is None:
            return
        if self._decided is None:
            self._decided = time.monotonic()
        if self._notified:
            self._notified = False
            self._loop.call_soon(self._report)

    def _report(self) -> None:
        self._notified = True
        self._on_change()
