"""The one writer: owns everything that changes, and publishes an immutable snapshot of it.

All methods run in the writer's thread, one after the other (see ``tula.daemon.loop``), and each
publishes what it has changed by one assignment to ``snapshot`` before it returns. Everybody else
reads only that, from any thread and without a lock.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import structlog

from tula.config.load import LoadedConfig
from tula.daemon.checks import CheckPlanner
from tula.daemon.connection_counts import ConnectionBalance
from tula.daemon.problems import place_problems
from tula.daemon.reconciler import CycleResult, Findings, Reconciler
from tula.daemon.snapshot import Connections, Snapshot
from tula.engine.advice_file import Said
from tula.engine.balancer import Balancer
from tula.engine.change import Change
from tula.engine.control import Cycle, LossError, Match, Order, SourceError
from tula.engine.event_log import EventLog
from tula.engine.everywhere import Joint
from tula.engine.overrides import OverrideChange
from tula.engine.statistics import CycleOutcome, CycleStatistics
from tula.model.client_scopes import ClientScope
from tula.model.config import Config, IPAddress
from tula.model.errors import KernelError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName, BackendStatus, Health, Override
from tula.model.problem import PlacedProblem, ProblemsError
from tula.plan.advice import standing


@dataclass(frozen=True, slots=True)
class Offer:
    """What the daemon's file holds, to be taken: a configuration, or why it is none."""

    found: LoadedConfig | tuple[PlacedProblem, ...]
    file: str
    """its name, for people"""
    order: Order


_ADOPTED = "was down when the daemon before this one ended"
_NOTHING_SAID: Said = {}
_REVISIONS = 100
"""So many known revisions are remembered: only the latest may still be heard of."""


class Writer:
    """Composes what changes: the reconciler, the planned checks, the balance of connections."""

    def __init__(
        self,
        balancer: Balancer,
        reconciler: Reconciler,
        checks: CheckPlanner,
        events: EventLog,
        aside: Callable[[], AbstractContextManager[None]],
        *,
        wall: Callable[[], float] = time.time,
        said: Callable[[Config], Said] = lambda _: _NOTHING_SAID,
    ) -> None:
        """``aside`` keeps the daemon's own changes of many elements from being heard (see
        ``EventSource.muted``); ``wall`` tells seconds since the epoch; ``said`` what the checks of
        the daemon before this one said."""
        self._balancer = balancer
        self._reconciler = reconciler
        self._checks = checks
        self._events = events
        self._balance = ConnectionBalance(events)
        self._aside = aside
        self._wall = wall
        self._said = said
        self._adopted: Mapping[BackendName, Health] = {}
        self._read = False
        self._started = False
        self._connections: Connections | None = None
        self._last: Cycle | None = None
        self._cycles = CycleStatistics()
        self._revisions: deque[int] = deque(maxlen=_REVISIONS)
        self.snapshot = Snapshot()

    def start(self) -> None:
        """Takes up what the state directory remembers. Never raises: what failed is tried again by
        the first cycle."""
        with self._publishing():
            try:
                self._start()
            except StateError as error:
                self._reconciler.fail(str(error))

    def cycle(
        self,
        findings: Findings,
        *,
        compare: bool = False,
        offer: Offer | None = None,
        decided: float | None = None,
    ) -> CycleResult:
        """One cycle, of the offered configuration if that is another one than the running.

        ``decided``: when the first verdict was reached that this cycle acts on (monotonic). Never
        raises: whatever fails is told in the result, and the next cycle compares everything.
        """
        with self._publishing():
            try:
                with self._aside():
                    result = self._cycle(findings, compare, offer)
            except (KernelError, StateError) as error:
                result = self._reconciler.fail(str(error))
            except Exception as error:
                # A bug must not end health checks and failover for good: it is a failed cycle.
                structlog.get_logger("tula").error("bug", traceback=traceback.format_exc())
                result = self._reconciler.fail(f"internal error: {error!r}")
            self._record(result, decided)
            return result

    def apply(
        self, configuration: LoadedConfig, findings: Findings, order: Order
    ) -> tuple[Change, CycleResult]:
        """Accepts a configuration. Raises as ``Reconciler.accept`` does; is a cycle, too."""
        with self._publishing(), self._aside():
            start = time.perf_counter()
            change = self._reconciler.accept(configuration, findings, order)
            result = self._accepted(change, start)
            self._record(result, None)
            return change, result

    def check(self, configuration: LoadedConfig, findings: Findings, order: Order) -> None:
        """Raises what keeps the order from being carried out, as far as that is known without a
        look at the kernel. Changes nothing."""
        self._reconciler.check(configuration, findings, order)

    def confirm(self, by: str, match: Match = None, *, dry: bool = False, change: str = "") -> str:
        """Accepts what waits for confirmation, of a ``change`` on all balancers or alone, and
        returns its digest. Raises ConditionError, RefusedError, NothingToConfirmError, and
        StateError; then it still waits."""
        if dry:
            return self._reconciler.confirm(by, match, dry=True, change=change)
        with self._publishing():
            return self._reconciler.confirm(by, match, change=change)

    def hold(self, joint: Joint, seconds: float) -> str:
        """See ``Configurations.hold``."""
        with self._publishing():
            return self._reconciler.configurations.hold(joint, seconds)

    def go_back(
        self, findings: Findings, why: str, by: str, match: Match = None
    ) -> CycleResult | None:
        """Restores the configuration from before the one that waits for confirmation; None if
        none waits. Raises ConditionError."""
        self._reconciler.configurations.require_match(match)
        if self.snapshot.tentative is None:
            return None
        with self._publishing():
            self._reconciler.go_back(why, by)
            return self.cycle(findings, compare=True)

    def end(self, findings: Findings) -> None:
        """Before the daemon ends: nobody could confirm what waits for it any more."""
        if self.snapshot.tentative is not None:
            self.go_back(findings, "the daemon ends", "")

    def refuse(
        self, problems: tuple[PlacedProblem, ...], file: str, by: str = "", *, keep: bool = True
    ) -> None:
        """A configuration has these problems; ``keep``: it is that of the daemon's file."""
        with self._publishing():
            self._reconciler.configurations.refuse(problems, file, by, keep)

    def found_file(self, text: bytes | None, file: str, error: str = "") -> None:
        """The daemon's file holds this text; None: it cannot be read, for this reason."""
        with self._publishing():
            configurations = self._reconciler.configurations
            configurations.found_file(text, file)
            if text is None and not configurations.ignores_file:
                configurations.refuse((PlacedProblem(error),), file)

    def override(
        self,
        backend: BackendName,
        change: OverrideChange,
        findings: Findings,
        *,
        by: str = "",
        yes: bool = True,
    ) -> CycleResult:
        """Changes the operator's override of a backend, and brings the kernel to it.

        Raises StateError, and LossError unless ``yes``, and then nothing has changed.
        """
        with self._publishing():
            override = change(self._reconciler.overrides.get(backend, Override()))
            self._reconciler.preview(backend, override, findings, yes=yes)
            self._reconciler.override(backend, override, by)
            return self.cycle(findings)

    def preview(
        self, backend: BackendName, change: OverrideChange, findings: Findings, *, yes: bool
    ) -> tuple[Override, BackendStatus | None]:
        """The override that ``override`` would make, and how the backend would stand. Changes
        nothing. Raises LossError unless ``yes``."""
        override = change(self._reconciler.overrides.get(backend, Override()))
        statuses = self._reconciler.preview(backend, override, findings, yes=yes)
        return override, statuses.of.get(backend)

    def count(self, counts: Connections | None, findings: Findings) -> CycleResult | None:
        """Takes a new count of connections; None: there is none. Acts on shares that moved, and
        returns what came of that."""
        with self._publishing():
            self._connections = counts
            moved = self._balance.update(self.snapshot, counts)
            if moved is None:
                return None
            self._reconciler.shares = moved
            return self.cycle(findings)

    def stand_by(self, standby: bool, by: str) -> bool:
        """The operator wants other balancers to have the VIPs, or no longer; whether that is news.
        Raises StateError, and KernelError when it is known on the disk alone; then the next full
        cycle tells it."""
        with self._publishing():
            served, applied = self._balancer.served, self._balancer.applied
            changed = served.set_standby(standby, by)
            if changed:
                self._events.add(EventKind.STANDBY if standby else EventKind.ACTIVE, by=by)
            failures = [] if applied is None else served.tell(applied.plan)
            if failures:
                raise KernelError("; ".join(failures))
            return changed

    def share_flows(self) -> None:
        """See ``Control.share_flows``."""
        with self._publishing():
            self._balancer.share_again()

    def forget_clients(self, scopes: Sequence[ClientScope], client: IPAddress | None) -> int | None:
        """See ``ClientControl.forget``: how many entries that were. Raises KernelError and
        StateError."""
        # The change is nobody else's, but not in the last receipt either: it is compared once.
        with self._aside():
            return self._balancer.forget_clients(scopes, client)

    def _start(self) -> None:
        if not self._read:
            self._reconciler.start()
            self._balancer.served.read()
            self._read = True

    def _cycle(self, findings: Findings, compare: bool, offer: Offer | None) -> CycleResult:
        if not self._started:
            compare = True
            self._start()
            now = self._wall()
            self._adopted = self._adopt(self._reconciler.adopted(), now)
            findings = {**self._adopted, **findings}
            self._started = True
        if self._reconciler.configurations.overdue:
            self._reconciler.go_back("not confirmed in time")
            compare = True
        start = time.perf_counter()
        change = None if offer is None else self._offer(offer, findings)
        if change is not None:
            # Accepting has read and compared everything: a second cycle would find nothing.
            return self._accepted(change, start)
        result = self._reconciler.cycle(findings, compare=compare)
        self._plan_checks(compare or offer is not None)
        return result

    def _adopt(self, down: frozenset[BackendName], now: float) -> Mapping[BackendName, Health]:
        """What is known of backends before they are checked."""
        running = self._reconciler.configuration
        said = self._said(running.config) if running is not None else _NOTHING_SAID
        # With on_down: keep the kernel holds those that drain as it holds those that are down.
        down -= {name for name, advice in said.items() if standing(advice, 1).drains}
        return {
            name: Health(
                False if name in down else None,
                now,
                _ADOPTED if name in down else "",
                advice=said.get(name, ()),
            )
            for name in down | said.keys()
        }

    def _offer(self, offer: Offer, findings: Findings) -> Change | None:
        """What was changed for the file's configuration, if it is taken and did not run before."""
        configurations, found = self._reconciler.configurations, offer.found
        file, by = offer.file, offer.order.by
        if not isinstance(found, LoadedConfig):
            configurations.refuse(found, file, by)
            return None
        running = configurations.running
        same = running is not None and running.source == found.source
        if same and configurations.tentative is None:
            configurations.still_accepted()
            return None
        try:
            # With nothing that could run instead, what can run does, and the rest when it comes.
            order = replace(offer.order, late=running is None)
            return self._reconciler.accept(found, findings, order)
        except ProblemsError as error:
            configurations.refuse(place_problems(error, found.positions), file, by)
        except LossError as error:
            configurations.refuse(loss_problems(error), file, by)
        except SourceError as error:
            configurations.refuse((PlacedProblem(str(error)),), file, by, keep=False)
        except (KernelError, StateError) as error:
            configurations.defer(str(error))
        return None

    def _accepted(self, change: Change, start: float) -> CycleResult:
        self._plan_checks(settle=True)
        outcome = CycleOutcome.CHANGED if change else CycleOutcome.UNCHANGED
        warned = bool(self._reconciler.warnings)
        return CycleResult(outcome, time.perf_counter() - start, change, warned=warned)

    def _plan_checks(self, settle: bool) -> None:
        configuration, applied = self._reconciler.configuration, self._balancer.applied
        if applied is not None and configuration is not None:
            self._checks.plan(configuration.config, applied, settle=settle)

    def _record(self, result: CycleResult, decided: float | None) -> None:
        reaction = None
        cycles = self._cycles
        reactions, seconds = cycles.reactions, cycles.reaction_seconds
        if decided is not None and result.committed is not None:
            reaction = result.committed - decided
            reactions, seconds = reactions + 1, seconds + reaction
        outcomes = {**cycles.outcomes}
        outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
        self._cycles = CycleStatistics(
            outcomes, cycles.seconds + result.seconds, reactions, seconds
        )
        self._last = Cycle(self._wall(), result.seconds, result.outcome, result.error, reaction)

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """Publishes what was changed inside, whatever came of it, and then tells of it."""
        with self._events.held():
            try:
                yield
            finally:
                self._publish()

    def _publish(self) -> None:
        reconciler, balancer, checks = self._reconciler, self._balancer, self._checks.planned
        configurations = reconciler.configurations
        for revision in sorted(reconciler.known_revisions.difference(self._revisions)):
            self._revisions.append(revision)
        problems = reconciler.problems + reconciler.warnings + self._balance.problems
        self.snapshot = Snapshot(
            revision=self.snapshot.revision + 1,
            configuration=configurations.running,
            accepted_at=configurations.accepted_at,
            tentative=configurations.tentative,
            refused=configurations.refused,
            deferred=configurations.deferred,
            file=configurations.file,
            statuses=reconciler.statuses,
            overrides=reconciler.overrides,
            entered=reconciler.entered,
            waiting=reconciler.waiting,
            shares=reconciler.shares,
            connections=self._connections,
            applied=balancer.applied,
            remembered=balancer.last_remembered,
            known_revisions=frozenset(self._revisions),
            problems=problems + (checks.problems if checks is not None else ()),
            obstacles=reconciler.obstacles,
            unsaved=reconciler.unsaved,
            adopted=self._adopted,
            checks=checks,
            standby=balancer.served.standby,
            last_cycle=self._last,
            cycles=self._cycles,
        )


def loss_problems(error: LossError) -> tuple[PlacedProblem, ...]:
    """Why nobody has taken the file's configuration, though nothing is wrong with it."""
    return tuple(
        PlacedProblem(f"{line}; if that is meant: tula reload --yes") for line in error.lines
    )
