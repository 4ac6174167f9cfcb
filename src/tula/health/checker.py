"""Runs all probes in one event loop, and knows how each backend stands."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping

from tula.health.check import Check, Lateness, ProbeView
from tula.health.diagnose import Ask, diagnose
from tula.health.lateness import LateStarts, Pulse
from tula.health.machine import counted, first_due, next_due
from tula.health.outcome import Outcome
from tula.health.probes import ask
from tula.health.probing import Probing, Watched, own_addresses
from tula.kernel.probe_sockets import ProbeSockets
from tula.model.config import HealthMonitor, HealthPolicy
from tula.model.health import BackendName, Finding, ProbeTarget

_DIAGNOSES = 32
"""Diagnoses at a time: a rack that fails is no reason to ask thousandfold."""
_SCRIPTS = 32
"""Programs at a time; those that wait start late, and that is counted."""

_Key = tuple[object, ...]


class Checker:
    """The probes of a daemon. All but ``__init__`` is called in the loop's thread.

    ``on_change`` is called, in the loop and once for all at the same time, when any finding's
    ``up`` changed; ``on_evidence`` when the reason of a backend that is down became known. ``ask``,
    ``clock`` (for ``since``) and ``chance`` (random, 0 to 1) are replaced by tests.
    """

    def __init__(
        self,
        sockets: ProbeSockets,
        on_change: Callable[[], None],
        *,
        on_evidence: Callable[[BackendName], None] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        ask: Ask | None = None,
    ) -> None:
        self._sockets = sockets
        self._on_change = on_change
        self._on_evidence = on_evidence
        self._clock = clock
        self._chance = chance
        self._ask = ask or self._ask_by_socket
        self._loop: asyncio.AbstractEventLoop | None = None
        self._probes: dict[_Key, Probing] = {}
        self._backends: dict[BackendName, Watched] = {}
        self._findings: dict[BackendName, Finding] = {}
        self._touched: set[Watched] = set()
        self._told = True
        self._decided: float | None = None
        self._late = LateStarts()
        self._pulse = Pulse() if ask is None else None
        self._diagnoses = asyncio.Semaphore(_DIAGNOSES)
        self._scripts = asyncio.Semaphore(_SCRIPTS)

    def set_checks(
        self,
        checks: Iterable[Check],
        policies: Mapping[str, HealthPolicy],
        adopted: Mapping[BackendName, Finding],
    ) -> None:
        """Replaces what is probed.

        Probes that stay (the same settings and target, ``backend_id`` aside) keep their state and
        their turn. A backend whose probes change stands as before until they have decided; a new
        one as ``adopted`` says. ``policies`` are by service.
        """
        now = self._clock()
        before, self._probes = self._probes, {}
        known, self._backends = self._backends, {}
        kept = {id(probing): probing for probing in before.values()}
        similar: dict[_Key, Probing] | None = None
        fresh: list[Probing] = []
        wanted: dict[BackendName, dict[int, list[Probing]]] = {}
        for check in checks:
            key = _key(check)
            probing = self._probes.get(key)
            if probing is None:
                probing = before.get(key)
                if probing is None:
                    similar = _by_backend(before.values()) if similar is None else similar
                    probing = similar.get(_similar(check.backend, check))
                # One that two backends shared may be two now, and goes on as one of them.
                if probing is None or kept.pop(id(probing), None) is None:
                    other, probing = probing, Probing(check)
                    if other is not None:
                        probing.count, probing.outcome = other.count, other.outcome
                    fresh.append(probing)
                probing.check = check
                probing.wanted = []
                self._probes[key] = probing
            targets = wanted.setdefault(check.backend, {}).setdefault(check.monitor, [])
            if probing not in targets:
                targets.append(probing)
        for probing in kept.values():
            probing.stop()
        for name, monitors in wanted.items():
            policy = policies.get(name[0], HealthPolicy())
            start = self._standing(known.get(name), monitors) or adopted.get(name)
            watched = Watched(name, monitors, policy, start, now)
            self._backends[name] = watched
            for probing in {id(p): p for targets in monitors.values() for p in targets}.values():
                probing.wanted.append(watched)
            old = known.get(name)
            watched.recount(now)
            if old is not None and old.up is not watched.up:
                self._tell()
        self._touched.clear()
        self._findings = {name: watched.finding() for name, watched in self._backends.items()}
        self._schedule(fresh)

    def findings(self) -> Mapping[BackendName, Finding]:
        """How the backends stand by their monitors."""
        for watched in self._touched:
            self._findings[watched.name] = watched.finding()
        self._touched.clear()
        return self._findings.copy()

    def take_decided(self) -> float | None:
        """When the first change was decided since this was last asked, by time.monotonic."""
        decided, self._decided = self._decided, None
        return decided

    def describe(self) -> list[ProbeView]:
        """How each probe stands."""
        return self.views()()

    def views(self) -> Callable[[], list[ProbeView]]:
        """``describe`` for another thread: what is returned may be called there."""
        probes = list(self._probes.values())
        return lambda: [probing.view() for probing in probes]

    def lateness(self) -> Lateness:
        """How late probes started."""
        return self._late.read(self._loop.time() if self._loop is not None else 0.0)

    async def run(self) -> None:
        """Probes until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._pulse is not None:
            self._pulse.start(self._loop)
        self._schedule(list(self._probes.values()))
        try:
            await self._loop.create_future()
        finally:
            self._loop = None
            if self._pulse is not None:
                self._pulse.stop()
            probes = self._probes.values()
            for probing in probes:
                probing.stop()
            tasks = [task for p in probes for task in (p.task, p.twin) if task is not None]
            await asyncio.gather(*tasks, return_exceptions=True)

    def _standing(self, old: Watched | None, monitors: dict[int, list[Probing]]) -> Finding | None:
        """What is known of a backend already, if it is the same server still."""
        if old is None or old.up is None:
            return None
        checks = (probing.check for targets in monitors.values() for probing in targets)
        now, before = own_addresses(checks), old.addresses()
        return None if now and before and not now & before else old.finding()

    def _schedule(self, fresh: list[Probing]) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        for position, probing in enumerate(fresh):
            due = first_due(now, position, len(fresh), probing.check.settings, self._chance())
            self._at(due, probing)

    def _at(self, due: float, probing: Probing) -> None:
        if self._loop is not None:
            probing.due = due
            probing.timer = self._loop.call_at(due, self._start, probing)

    def _start(self, probing: Probing) -> None:
        if self._loop is not None:
            probing.task = self._loop.create_task(self._run(probing))

    async def _run(self, probing: Probing) -> None:
        if probing.check.settings.type == "script":
            async with self._scripts:
                await self._probe(probing)
        else:
            await self._probe(probing)

    async def _probe(self, probing: Probing) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        probing.late = max(0.0, now - probing.due)
        self._late.note(probing.late, now)
        check = probing.check
        outcome = await self._safely(check.settings, check.target, _environment(check))
        self._take(probing, outcome)
        settings = probing.check.settings
        due = next_due(probing.due, loop.time(), probing.count, settings, self._chance())
        self._at(due, probing)

    def _take(self, probing: Probing, outcome: Outcome) -> None:
        before, shown = probing.count.up, probing.shown()
        probing.outcome = outcome
        if outcome.passed is not None:
            probing.count = counted(probing.count, outcome.passed, probing.check.settings)
            probing.failed += not outcome.passed
        if probing.count.up is not before:
            now = self._clock()
            for watched in probing.wanted:
                if watched.recount(now):
                    self._tell()
        if probing.count.up:
            probing.forget_diagnosis()
        elif self._loop is not None and probing.begin_diagnosis(self._loop.time()):
            probing.twin = self._loop.create_task(self._diagnose(probing, outcome))
        if probing.shown() != shown:
            self._touch(probing)

    def _touch(self, probing: Probing) -> None:
        for watched in probing.wanted:
            watched.forget_finding()
        self._touched.update(probing.wanted)

    async def _diagnose(self, probing: Probing, failed: Outcome) -> None:
        check = probing.check
        try:
            async with self._diagnoses:
                if check.direct is None or probing.count.up:
                    return
                known = probing.fault
                probing.fault = await diagnose(
                    check.settings, check.target, check.direct, failed, self._safely
                )
        finally:
            probing.twin = None
        self._touch(probing)
        if probing.fault in ("", known) or probing.count.up:
            return
        if self._on_evidence is not None:
            for watched in probing.wanted:
                if watched.up is False:
                    self._on_evidence(watched.name)

    async def _safely(
        self, settings: HealthMonitor, target: ProbeTarget, environment: Mapping[str, str]
    ) -> Outcome:
        """A fault of a probe's own must not end it, nor count against a backend."""
        try:
            return await self._ask(settings, target, environment)
        except Exception as error:
            return Outcome(
                None, f"{settings.type} to {target.address}: the check failed: {error!r}"
            )

    async def _ask_by_socket(
        self, settings: HealthMonitor, target: ProbeTarget, environment: Mapping[str, str]
    ) -> Outcome:
        lost = self._pulse.lost if self._pulse is not None else lambda: 0.0
        return await ask(settings, target, self._sockets, environment, lost)

    def _tell(self) -> None:
        """Once for all changes of this turn of the loop."""
        if self._loop is None:
            return
        if self._decided is None:
            self._decided = time.monotonic()
        if self._told:
            self._told = False
            self._loop.call_soon(self._call)

    def _call(self) -> None:
        self._told = True
        self._on_change()


def _key(check: Check) -> _Key:
    """What makes two checks one probe. A script is told for whom it runs."""
    whom = check.backend if check.settings.type == "script" else None
    return (check.settings, check.target, check.direct, whom)


def _similar(backend: BackendName, check: Check) -> _Key:
    """What makes a check the same as one before, whatever the backend's id is now."""
    at = check.target
    return (backend, check.settings, at.address, at.port, at.source, at.mark, check.direct)


def _by_backend(probes: Iterable[Probing]) -> dict[_Key, Probing]:
    """The probes by what ``_similar`` makes of them, for each backend that wants them."""
    return {
        _similar(watched.name, probing.check): probing
        for probing in probes
        for watched in probing.wanted
    }


def _environment(check: Check) -> Mapping[str, str]:
    """What a script is told; nothing for others."""
    if check.settings.type != "script":
        return {}
    own = check.direct or check.target
    vip = str(check.target.address) if check.target.source is not None else ""
    return {
        "TULA_SERVICE": check.backend[0],
        "TULA_BACKEND": check.backend[1],
        "TULA_ADDRESS": str(own.address),
        "TULA_PORT": str(check.target.port or ""),
        "TULA_VIP": vip,
    }
