"""One cycle of the control loop: observe, plan, diff, apply, remember the outcome.

Synchronous and without threads of its own, so that tests can play any order of events, failures
and restarts against a fake kernel. Only the writer calls it, one call after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tula.config.load import LoadedConfig
from tula.daemon.configurations import Configurations
from tula.daemon.first_passes import FirstPasses
from tula.daemon.ownership import require_owner
from tula.daemon.problems import describe_problem
from tula.engine.balancer import Balancer
from tula.engine.change import Change, Outcome
from tula.engine.control import (
    LossError,
    Match,
    NothingToConfirmError,
    Order,
)
from tula.engine.differences import describe_differences
from tula.engine.event_log import EventLog, state_events
from tula.engine.overrides import changed_overrides
from tula.engine.statistics import CycleOutcome
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.config import Config
from tula.model.errors import KernelError, StaleError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName, Health, Override
from tula.model.problem import ProblemsError
from tula.plan.backend_status import (
    NO_SHARES,
    BackendStatuses,
    Shares,
    moved_services,
    plan_backend_statuses,
    returned,
)
from tula.plan.first_pass import NONE_WAIT, Waiting
from tula.plan.losses import describe_losses, describe_override_losses

Findings = Mapping[BackendName, Health]
_NOTHING = Config((), ())
_ANY = Order(yes=True)
_ORDERED = frozenset(
    {EventKind.DRAINED, EventKind.UNDRAINED, EventKind.DISABLED, EventKind.ENABLED}
)

_TOLD = 5
"""Differences that an event tells of; the rest is a number."""


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What one cycle did. ``error`` is why it failed; then the next one has to compare all."""

    outcome: CycleOutcome
    seconds: float
    change: Change = field(default_factory=Change)
    error: str = ""
    committed: float | None = None
    """when the kernel had the change, by time.monotonic"""
    warned: bool = False
    """something could not be finished after the change; a full cycle has to try it again"""


class Reconciler:
    """Brings one machine to its configuration, the operator's overrides and its backends' health.

    What it publishes in attributes is replaced and never changed in place.
    """

    def __init__(
        self,
        balancer: Balancer,
        store: Store,
        events: EventLog,
        clock: Callable[[], float] = boot_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` tells seconds of the boot clock, ``wall`` those since the epoch."""
        self._balancer = balancer
        self._store = store
        self._events = events
        self._clock = clock
        self.configurations = Configurations(store, events, clock, wall)
        self._acting: tuple[BackendName, str] | None = None
        self._overrides: Mapping[BackendName, Override] = {}
        self._damage = ""
        self._failed = ""
        self._settled = False
        self._passes = FirstPasses(balancer.serving)
        self._planned: tuple[Config, Waiting] = (_NOTHING, NONE_WAIT)
        self.entered: Mapping[BackendName, float] = {}
        """When backends came back up, for slow start."""
        self.statuses = BackendStatuses()
        self.shares: Shares = NO_SHARES
        """The shares of least-connections; the next cycle acts on them."""
        self._acted: Shares = NO_SHARES
        self.obstacles: tuple[str, ...] = ()
        """What keeps parts of the configuration from the kernel, a line each: by the last
        comparison of all."""
        self.warnings: tuple[str, ...] = ()
        """What failed after the last change was made; a full cycle tries it again."""

    @property
    def configuration(self) -> LoadedConfig | None:
        """The one that runs."""
        return self.configurations.running

    @property
    def waiting(self) -> Waiting:
        """The backends that get nothing before their first pass."""
        return self._passes.waiting

    @property
    def overrides(self) -> Mapping[BackendName, Override]:
        """The operator's overrides."""
        return self._overrides

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not work now, a line each."""
        unsaved = self._balancer.unsaved
        told = (f"not remembered on disk: {unsaved}",) if unsaved else ()
        older, damage = self.configurations.obstacle, self._damage
        return (*self.obstacles, *told, *(line for line in (older, damage) if line))

    @property
    def unsaved(self) -> bool:
        """Whether the disk does not hold what the kernel was brought to."""
        return bool(self._balancer.unsaved)

    def start(self) -> None:
        """Takes up what the state directory remembers. Raises StateError."""
        with self._store.locked():  # a command that began before there was a daemon may say more
            self._overrides = self._store.overrides()
            self._damage = self._store.damage
            self.configurations.start()

    def adopted(self) -> frozenset[BackendName]:
        """The backends that the kernel was left without: they were down. Raises KernelError."""
        if self.configuration is None:
            return frozenset()
        self._passes.start(self.configuration.config)
        return self._balancer.missing(self.configuration.config)

    def accept(
        self, configuration: LoadedConfig, findings: Findings, order: Order = _ANY
    ) -> Change:
        """Accepts a configuration, if it fits this machine, and brings the kernel to it.

        Raises as ``check`` does, ProblemsError when this machine refuses it, KernelError and
        StateError when it could not be done; the configuration before goes on in each case.
        """
        statuses = self.check(configuration, findings, order)
        record = self.configurations.record(configuration, order)
        self._settled = False  # whatever comes of it, compare all the next time
        shares = self.shares
        outcome = self._balancer.apply(
            configuration.config,
            configuration.source.encode(),
            force=order.force,
            late=order.late,
            statuses=statuses.of,
            shares=shares,
            record=record,
            tentative=order.confirm is not None,
        )
        self.configurations.taken(configuration, order, record)
        self._acted = shares
        self._succeeded()
        self._note(outcome, compared=True)
        self._tell(statuses)
        if order.confirm is None:
            self._forget_overrides()
        return outcome.change

    def check(
        self, configuration: LoadedConfig, findings: Findings, order: Order
    ) -> BackendStatuses:
        """How backends would stand, if the order may be carried out.

        Raises ConditionError, SourceError, ProblemsError for what only the local file may give,
        LossError when it must be asked for, and RefusedError.
        """
        self.configurations.require(order)
        require_owner(configuration, self.configuration, order)
        statuses = self._stand(configuration, findings)
        if not order.yes:
            self._require_no_loss(configuration, statuses)
        return statuses

    def confirm(self, by: str, match: Match = None, *, dry: bool = False, change: str = "") -> str:
        """Accepts the configuration that waits for it, and returns its digest. Raises as
        ``require_confirmable`` does, and StateError; then it still waits."""
        self.configurations.require_confirmable(match, change)
        tentative, running = self.configurations.tentative, self.configuration
        if tentative is None or running is None:
            raise NothingToConfirmError
        if not dry:
            self._balancer.accept(running.source.encode(), tentative.record)
            self.configurations.confirmed(by)
            self._forget_overrides()
        return self.configurations.digest

    def go_back(self, why: str, by: str = "") -> None:
        """Has the next cycle restore the configuration from before the one that waits for
        confirmation."""
        self.configurations.go_back(why, by)
        self._settled = False

    def _require_no_loss(self, configuration: LoadedConfig, statuses: BackendStatuses) -> None:
        running = self.configuration
        if running is None:
            return
        lines = describe_losses(running.config, self.statuses.of, configuration.config, statuses.of)
        if lines:
            raise LossError(lines)

    @property
    def known_revisions(self) -> frozenset[int]:
        """The revisions of the data path that are no news: those that what was done last made,
        and the one that it was compared at."""
        applied = self._balancer.applied
        if applied is None:
            return frozenset()
        receipt = applied.receipt
        return receipt.own if receipt.revision is None else receipt.own | {receipt.revision}

    def cycle(self, findings: Findings, *, compare: bool) -> CycleResult:
        """Brings the kernel to what the accepted configuration and the findings mean.

        ``compare``: reads the whole kernel state first, as after a failure. Never raises for what
        the kernel or the disk refuse.
        """
        start = time.perf_counter()
        if self.configuration is None:
            return CycleResult(CycleOutcome.UNCHANGED, 0.0)
        statuses = self._stand(self.configuration, findings)
        try:
            repair, repaired, compared = self._act(self.configuration, statuses, compare)
        except (KernelError, StateError, ProblemsError) as error:
            return self.fail(str(error), time.perf_counter() - start)
        self._succeeded()
        self._note(repair, compared)
        if repaired:
            self._events.add(
                EventKind.KERNEL_REPAIRED,
                message=_summary(repair.change),
                evidence="; ".join(describe_differences(repair.change.steps(), _TOLD)),
            )
        self._tell(statuses)
        outcome = CycleOutcome.CHANGED if repair.change else CycleOutcome.UNCHANGED
        if repaired:
            outcome = CycleOutcome.REPAIRED
        seconds, committed = time.perf_counter() - start, repair.committed
        return CycleResult(
            outcome,
            seconds,
            repair.change,
            committed=committed if repair.change else None,
            warned=bool(self.warnings) or repair.incomplete,
        )

    def override(self, name: BackendName, override: Override, by: str = "") -> None:
        """Remembers the operator's override of a backend; the next cycle acts on it.

        Raises StateError, and then nothing has changed.
        """
        overrides = changed_overrides(self._overrides, name, lambda _: override)
        self._store.save_overrides(overrides)
        self._overrides, self._damage = overrides, ""
        self._acting = (name, by)

    def preview(
        self, name: BackendName, override: Override, findings: Findings, *, yes: bool
    ) -> BackendStatuses:
        """How backends would stand with that override. Raises LossError, unless ``yes``, if it
        takes the last backend that serves."""
        configuration = self.configuration
        if configuration is None:
            return self.statuses
        overrides = changed_overrides(self._overrides, name, lambda _: override)
        statuses = plan_backend_statuses(
            configuration.config,
            findings,
            overrides,
            self._clock(),
            self.entered,
            self.statuses,
            self.waiting,
        )
        lines = describe_override_losses(configuration.config, self.statuses.of, statuses.of)
        if lines and not yes:
            raise LossError(lines)
        return statuses

    def _act(
        self, configuration: LoadedConfig, statuses: BackendStatuses, compare: bool
    ) -> tuple[Outcome, bool, bool]:
        """What was done, whether it repaired what somebody else had changed, and whether all of
        the kernel was read for it."""
        shares = self.shares
        if self._settled and not compare:
            if not moved_services(self.statuses.of, statuses.of) and shares is self._acted:
                return Outcome(Change()), False, False
            try:
                repair = self._balancer.adjust(statuses.of, shares)
                self._acted = shares
                return repair, False, False
            except StaleError:
                pass
        was_settled, self._settled = self._settled, False
        repair = self._balancer.reconcile(configuration.config, statuses.of, shares)
        same = statuses.of == self.statuses.of and shares is self._acted
        self._acted = shares
        unasked = repair.drifted or (same and not repair.heard)
        foreign = was_settled and bool(repair.change) and unasked
        return repair, foreign, True

    def _stand(self, configuration: LoadedConfig, findings: Findings) -> BackendStatuses:
        now, config = self._clock(), configuration.config
        before, overrides = self.statuses, self._overrides
        waiting = self._passes.plan(config, findings)
        self._planned = config, waiting
        statuses = plan_backend_statuses(
            config, findings, overrides, now, self.entered, before, waiting
        )
        back = dict.fromkeys(returned(before.of, statuses.of), now)
        if back:
            self.entered = {**self.entered, **back}
            statuses = plan_backend_statuses(
                config, findings, overrides, now, self.entered, statuses, waiting
            )
        return statuses

    def _tell(self, statuses: BackendStatuses) -> None:
        before, self.statuses = self.statuses, statuses
        self._passes.take(*self._planned)
        acting, self._acting = self._acting, None
        for kind, subject, message, evidence in state_events(before, statuses):
            ordered = acting is not None and kind in _ORDERED and subject == "/".join(acting[0])
            self._events.add(
                kind, subject, message, evidence, acting[1] if acting and ordered else ""
            )

    def _succeeded(self) -> None:
        if self._failed:
            self._events.add(EventKind.CYCLE_RECOVERED)
        self._failed, self._settled = "", True

    def fail(self, error: str, seconds: float = 0.0) -> CycleResult:
        """A cycle that failed for this reason, which is told once."""
        if error != self._failed:
            self._events.add(EventKind.CYCLE_FAILED, message=error)
        self._failed, self._settled = error, False
        return CycleResult(CycleOutcome.FAILED, seconds, error=error)

    def _note(self, repair: Outcome, compared: bool) -> None:
        """What stands in the way; only a full cycle finds out what does so no longer."""
        if compared:
            self.warnings = repair.warnings
            self._tell_obstacles(tuple(map(describe_problem, repair.problems)))
        else:
            self.warnings = (*self.warnings, *repair.warnings)

    def _tell_obstacles(self, obstacles: tuple[str, ...]) -> None:
        """One event for all that are new: a card that goes may take hundreds of routes along."""
        new = [line for line in obstacles if line not in set(self.obstacles)]
        if new:
            more = f"; and {len(new) - 1} more" if len(new) > 1 else ""
            self._events.add(EventKind.NETWORK_WARNING, message=new[0] + more)
        elif self.obstacles and not obstacles:
            self._events.add(EventKind.NETWORK_RECOVERED)
        self.obstacles = obstacles

    def _forget_overrides(self) -> None:
        """Overrides of backends that are no longer configured."""
        kept = {name: o for name, o in self._overrides.items() if name in self.statuses.of}
        if kept != self._overrides:
            try:
                self._store.save_overrides(kept)
            except StateError:
                return
            self._overrides = kept


def _summary(change: Change) -> str:
    return "repaired " + " and ".join(change.parts)
