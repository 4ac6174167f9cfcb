"""From health and the operator's overrides to how each backend counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import floor

from tula.model.advice import Admin
from tula.model.config import Backend, Config, OnDown, Scheduler, VirtualService
from tula.model.health import BackendName, BackendStatus, Health, Override, State
from tula.model.persistence import ClientsOfDrained
from tula.plan.advice import Standing, standing
from tula.plan.first_pass import NONE_WAIT, Waiting
from tula.plan.pools import plan_pool

_SLOW_STEPS = 10
"""A slow start's weight rises in so many steps: each one moves elements in the kernel."""

DEADLINE_PASSED = "its drain ended at the deadline"
_WAITS = "not checked yet; gets traffic once its checks pass (initial: down)"
_AWAY = BackendStatus(State.DOWN, 0, False, "no route to it")
Shares = Mapping[str, Mapping[str, int]]
"""What least-connections gives each backend now: by service, then by the backend's name."""
NO_SHARES: Shares = {}

_NO_FINDING = Health(up=None, since=0.0)
_NO_OVERRIDE = Override()


@dataclass(frozen=True, slots=True)
class _Basis:
    """What the statuses were planned from, to see what has changed since."""

    config: Config
    findings: Mapping[BackendName, Health]
    overrides: Mapping[BackendName, Override]
    entered: Mapping[BackendName, float]
    untils: Mapping[str, float]
    """by service"""
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class BackendStatuses:
    """How all backends of a configuration count.

    ``panicking`` are services that serve by backends that are down, since too few are up;
    ``backups`` those that serve by their backups, with the level of these; ``short`` those of which
    nobody serves, since fewer can than their ``minimum``.
    ``until``: when time alone changes something (a step of a slow start, a deadline), in seconds
    of the boot clock; None: never.
    """

    of: Mapping[BackendName, BackendStatus] = field(default_factory=dict)
    panicking: frozenset[str] = frozenset()
    backups: Mapping[str, int] = field(default_factory=dict)
    short: frozenset[str] = frozenset()
    until: float | None = None
    basis: _Basis | None = field(default=None, compare=False, repr=False)


def plan_backend_statuses(
    config: Config,
    findings: Mapping[BackendName, Health],
    overrides: Mapping[BackendName, Override],
    now: float,
    entered: Mapping[BackendName, float] | None = None,
    before: BackendStatuses | None = None,
    waiting: Waiting = NONE_WAIT,
) -> BackendStatuses:
    """The statuses at ``now``, in seconds of the boot clock.

    Those of ``waiting`` get nothing before their first pass.

    ``entered`` tells when backends came back up, for services with a slow start. ``before`` are
    earlier statuses: services of which nothing has changed since are taken from there, the same
    objects, and so is each status that is equal.
    """
    entered = entered or {}
    services: Iterable[VirtualService] = config.services
    found: dict[BackendName, BackendStatus] = {}
    panicking: set[str] = set()
    backups: dict[str, int] = {}
    short: set[str] = set()
    untils: dict[str, float] = {}
    known: Mapping[BackendName, BackendStatus] = {}
    if before is not None and before.basis is not None and before.basis.config is config:
        basis, known = before.basis, before.of
        names = _services_to_replan(basis, findings, overrides, entered, now)
        names |= {name for name, _ in basis.waiting ^ waiting}
        services = [service for service in config.services if service.name in names]
        found = dict(known)
        panicking, short = set(before.panicking - names), set(before.short - names)
        backups = {name: level for name, level in before.backups.items() if name not in names}
        untils = {name: until for name, until in basis.untils.items() if name not in names}
    for service in services:
        of = _Service(service, findings, overrides, now, entered, waiting)
        alone = {backend.name: of.stand(backend) for backend in service.backends}
        pool = plan_pool(service, alone, of.candidates())
        if pool.panics:
            panicking.add(service.name)
        if pool.backups:
            backups[service.name] = pool.backups
        if pool.short:
            short.add(service.name)
        for name, status in pool.statuses.items():
            whole = (service.name, name)
            old = known.get(whole)
            found[whole] = old if old is not None and old == status else status
        if of.changes:
            untils[service.name] = min(of.changes)
    return BackendStatuses(
        found,
        frozenset(panicking),
        backups,
        frozenset(short),
        min(untils.values(), default=None),
        _Basis(config, dict(findings), dict(overrides), dict(entered), untils, waiting),
    )


def _services_to_replan(
    basis: _Basis,
    findings: Mapping[BackendName, Health],
    overrides: Mapping[BackendName, Override],
    entered: Mapping[BackendName, float],
    now: float,
) -> set[str]:
    names = _changed(basis.findings, findings)
    names |= _changed(basis.overrides, overrides)
    names |= _changed(basis.entered, entered)
    return names | {name for name, until in basis.untils.items() if until <= now}


def _changed(before: Mapping[BackendName, object], after: Mapping[BackendName, object]) -> set[str]:
    """The services of the names whose values are other objects."""
    get = before.get
    found = {name[0] for name, value in after.items() if get(name) is not value}
    return found | {name[0] for name in before.keys() - after.keys()}


def effective_config(
    config: Config, statuses: Mapping[BackendName, BackendStatus], shares: Shares = NO_SHARES
) -> Config:
    """The configuration with the weights that count now; others keep their own."""
    services = tuple(effective_service(each, statuses, shares) for each in config.services)
    return replace(config, services=services)


def moved_services(
    before: Mapping[BackendName, BackendStatus], after: Mapping[BackendName, BackendStatus]
) -> frozenset[str]:
    """The services with a change that the kernel may see: of a weight, of what is present, of who
    keeps persistent clients."""
    get = before.get
    return frozenset(
        name[0]
        for name, status in after.items()
        if (old := get(name)) is not status and (old is None or _seen(old) != _seen(status))
    ) | frozenset(name[0] for name in before.keys() - after.keys())


def _seen(status: BackendStatus) -> tuple[int, bool, bool, bool]:
    return status.weight, status.present, status.stands_by, status.keeps_clients


def without_route(
    statuses: Mapping[BackendName, BackendStatus], away: Iterable[BackendName]
) -> Mapping[BackendName, BackendStatus]:
    """The statuses, with those that have no route counting for nothing."""
    return {**statuses, **dict.fromkeys(away, _AWAY)}


def absent_backends(statuses: Mapping[BackendName, BackendStatus]) -> frozenset[BackendName]:
    """Those that must not even keep the flows that they have."""
    return frozenset(name for name, status in statuses.items() if not status.present)


def returned(
    before: Mapping[BackendName, BackendStatus], after: Mapping[BackendName, BackendStatus]
) -> Iterable[BackendName]:
    """The backends that were down and are up now."""
    return (
        name
        for name, status in after.items()
        if (old := before.get(name)) is not status
        and status.state is State.UP
        and old is not None
        and old.state is State.DOWN
    )


def moved_shares(before: Shares, after: Shares) -> frozenset[str]:
    """The services whose shares differ."""
    if before is after:
        return frozenset()
    names = before.keys() | after.keys()
    return frozenset(name for name in names if before.get(name) != after.get(name))


def effective_service(
    service: VirtualService,
    statuses: Mapping[BackendName, BackendStatus],
    shares: Shares = NO_SHARES,
) -> VirtualService:
    """A service with the weights that count now, and with the shares of least-connections."""
    weighed = _weighed(service, statuses)
    own = shares.get(service.name)
    if own is None or service.scheduler is not Scheduler.LEAST_CONNECTIONS:
        return weighed
    # One that came since the last count starts with the most.
    most = max(own.values(), default=1)
    given = (own.get(b.name, most) if b.weight else 0 for b in weighed.backends)
    return replace(weighed, shares=tuple(given))


def _weighed(
    service: VirtualService, statuses: Mapping[BackendName, BackendStatus]
) -> VirtualService:
    weights = [
        status.weight
        if (status := statuses.get((service.name, backend.name))) is not None
        else backend.weight
        for backend in service.backends
    ]
    pairs = list(zip(service.backends, weights, strict=True))
    if all(backend.weight == weight for backend, weight in pairs):
        return service
    backends = tuple(b if b.weight == weight else replace(b, weight=weight) for b, weight in pairs)
    return replace(service, backends=backends)


class _Service:
    """One service's statuses; collects when time alone will change them."""

    def __init__(
        self,
        service: VirtualService,
        findings: Mapping[BackendName, Health],
        overrides: Mapping[BackendName, Override],
        now: float,
        entered: Mapping[BackendName, float],
        waiting: Waiting,
    ) -> None:
        self._service = service
        self._waiting = waiting
        self._findings = findings
        self._overrides = overrides
        self._now = now
        self._entered = entered
        self.changes: list[float] = []

    def _of(self, backend: Backend) -> tuple[Health, Override, int]:
        name = (self._service.name, backend.name)
        override = self._overrides.get(name, _NO_OVERRIDE)
        weight = backend.weight if override.weight is None else override.weight
        return self._findings.get(name, _NO_FINDING), override, weight

    def _said(self, backend: Backend) -> Standing:
        """What its checks say of it, beside up and down."""
        finding, override, _ = self._of(backend)
        return standing(finding.advice, backend.weight, override.weight)

    def stand(self, backend: Backend) -> BackendStatus:
        """How the backend counts by itself."""
        finding, override, weight = self._of(backend)
        said = self._said(backend)
        if override.disable:
            return BackendStatus(State.DISABLED, 0, False, "disabled by the operator")
        if override.drain and override.deadline is not None:
            if override.deadline <= self._now:
                return BackendStatus(State.DISABLED, 0, False, DEADLINE_PASSED)
            self.changes.append(override.deadline)
        if said.admin is Admin.MAINT:
            return BackendStatus(State.DISABLED, 0, False, said.reason)
        if finding.up is False:
            keeps = self._service.on_down is OnDown.KEEP and not self._waits(backend)
            return BackendStatus(State.DOWN, 0, keeps, finding.evidence)
        if self._waits(backend):
            seen = f"; {finding.evidence}" if finding.evidence else ""
            return BackendStatus(State.DOWN, 0, False, _WAITS + seen)
        if override.drain:
            return self._draining("drained by the operator", override)
        if weight == 0:
            return self._draining("its weight is 0", override)
        weight = weight if said.weight is None else said.weight
        if not said.serves:
            return self._draining(said.reason, override)
        if finding.up is None:
            unchecked = "not checked yet" if self._service.health else ""
            return BackendStatus(State.UNKNOWN, weight, True, _both(unchecked, said.reason))
        weight, reason = self._slow(backend, weight)
        return BackendStatus(State.UP, weight, True, _both(reason, said.reason))

    def _draining(self, why: str, override: Override) -> BackendStatus:
        persistence = self._service.persistence
        if persistence is None:
            return BackendStatus(State.DRAINING, 0, True, why)
        keeps = persistence.drain is ClientsOfDrained.KEEP and not override.release
        told = "keeps its persistent clients" if keeps else "its persistent clients are released"
        return BackendStatus(State.DRAINING, 0, True, f"{why}; {told}", keeps_clients=keeps)

    def _waits(self, backend: Backend) -> bool:
        name = (self._service.name, backend.name)
        return name in self._waiting and not self._findings.get(name, _NO_FINDING).up

    def _slow(self, backend: Backend, weight: int) -> tuple[int, str]:
        """The weight of a backend that came up a while ago, and why it is that."""
        took = self._service.policy.slow_start
        since = self._entered.get((self._service.name, backend.name))
        if not took or since is None or self._now >= since + took:
            return weight, ""
        step = max(0, floor((self._now - since) / took * _SLOW_STEPS)) + 1
        if step >= _SLOW_STEPS:
            return weight, ""
        self.changes.append(since + took * step / _SLOW_STEPS)
        return max(1, weight * step // _SLOW_STEPS), "its weight rises (slow start)"

    def candidates(self) -> dict[str, int]:
        """The backends that the operator, and their own checks, want new connections to go to,
        with the weights that no check has changed.

        Not those that wait for their first pass: that they do not serve is no sign of monitors
        that cannot be trusted, and panic does not bring them in.
        """
        found = {}
        for backend in self._service.backends:
            _, override, weight = self._of(backend)
            if self._waits(backend):
                continue
            if override.drain or override.disable or not self._said(backend).serves:
                continue
            if weight:
                found[backend.name] = weight
        return found


def _both(one: str, other: str) -> str:
    return "; ".join(filter(None, (one, other)))
