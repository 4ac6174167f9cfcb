"""One loop's body: observe, plan, diff, apply, remember the outcome.

Synchronous and without threads of its own, so that tests can play any order of events, failures
and restarts against a fake kernel. Whoever calls it sees to it that one call ends before the
next begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tula.config.errors import place
from tula.config.load import Document, DocumentError, parse_document
from tula.engine.balancer import Balancer
from tula.engine.change import Change, Outcome
from tula.engine.changes import told_changes
from tula.engine.control import Refusal
from tula.engine.event_log import EventLog
from tula.engine.figures import CycleOutcome
from tula.engine.overrides import changed_overrides
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.config import Config, Scheduler, VirtualService
from tula.model.errors import KernelError, StaleError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName, Health, Override
from tula.model.problem import PlacedProblem, ProblemsError
from tula.plan.standing import (
    NO_SHARES,
    Shares,
    Standings,
    effective_config,
    moved_services,
    plan_standings,
    returned,
)

Findings = Mapping[BackendName, Health]


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What one cycle did. ``error`` is why it failed; then the next one has to compare all."""

    outcome: CycleOutcome
    seconds: float
    change: Change = field(default_factory=Change)
    error: str = ""
    committed: float | None = None
    """when the kernel had the change, by time.monotonic"""


class Reconciler:
    """Keeps one machine true to its document, to what the operator said and to health."""

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
        self._wall = wall
        self._entered: dict[BackendName, float] = {}
        self._overrides: dict[BackendName, Override] = {}
        self._failed = ""
        self._settled = False
        self.document: Document | None = None
        self.accepted_at: float | None = None
        self.refused: Refusal | None = None
        self.standings = Standings()
        self.shares: Shares = NO_SHARES
        """What least-connections gives to whom; the next cycle acts on it."""
        self._acted: Shares = NO_SHARES
        self.problems: tuple[str, ...] = ()
        """What it cannot do now, though it runs."""
        self.postponed = ""
        """Why the text offered last is not taken yet; it has to be offered again."""

    @property
    def overrides(self) -> Mapping[BackendName, Override]:
        """What the operator said of backends."""
        return self._overrides

    def start(self) -> None:
        """Takes up what the state directory remembers. Raises StateError."""
        with self._store.locked():  # a command that began before there was a daemon may say more
            self._overrides = self._store.overrides()
            source = self._store.document()
        if source is None:
            return
        try:
            self.document = parse_document(source)
        except DocumentError as error:  # of another version of Tula
            self.problems = (f"the last accepted document does not parse any more: {error}",)

    def adopted(self) -> frozenset[BackendName]:
        """The backends that the kernel was left without: they were down. Raises KernelError."""
        return self._balancer.missing(self.document.config) if self.document else frozenset()

    def offer(self, source: bytes, findings: Findings, *, force: bool = False) -> Change:
        """Takes a document, if it fits this machine, and brings the kernel to it.

        Raises DocumentError and ProblemsError when it is refused, KernelError and StateError when
        it could not be done; the document before goes on in each case.
        """
        try:
            document = parse_document(source)
            standings = self._stand(document, findings)
            self._settled = False  # whatever comes of it, compare all the next time
            shares = self.shares
            outcome = self._balancer.apply(
                document.config, source, force=force, standings=standings.of, shares=shares
            )
        except DocumentError as error:
            self._refuse(tuple(place(problem, error.positions) for problem in error.problems))
            raise
        except ProblemsError as error:
            self._refuse(tuple(place(problem, document.positions) for problem in error.problems))
            raise
        except (KernelError, StateError) as error:
            self._postpone(str(error))
            raise
        self.document, self.accepted_at, self.refused = document, self._wall(), None
        self.postponed = ""
        self._settled, self._acted = True, shares
        self._events.add(
            EventKind.DOCUMENT_ACCEPTED, message=f"{len(document.config.services)} services"
        )
        self._tell(standings)
        self._forget_overrides()
        return outcome.change

    @property
    def effective(self) -> Config | None:
        """The document with the weights that count now."""
        if self.document is None:
            return None
        return effective_config(self.document.config, self.standings.of)

    @property
    def counts_wanted(self) -> bool:
        """Whether somebody waits for backends to be empty, or connections decide."""
        return bool(self.least) or any(o.drain for o in self._overrides.values())

    @property
    def least(self) -> tuple[VirtualService, ...]:
        """The services of least-connections, with their own weights."""
        services = self.document.config.services if self.document is not None else ()
        return tuple(s for s in services if s.scheduler is Scheduler.LEAST_CONNECTIONS)

    @property
    def own_revisions(self) -> frozenset[int]:
        """The revisions of the data path that what was done last led to."""
        applied = self._balancer.applied
        return frozenset() if applied is None else applied.receipt.own

    def still_accepted(self) -> None:
        """The file holds what is accepted, again or still."""
        self.refused, self.postponed = None, ""
        if self.accepted_at is None:
            self.accepted_at = self._wall()

    def plan(self, source: bytes | None, findings: Findings, *, force: bool = False) -> Change:
        """What ``offer`` would do with a document, or with the accepted one; changes nothing.

        Raises DocumentError, ProblemsError and KernelError.
        """
        document = self.document if source is None else parse_document(source)
        if document is None:
            return Change()
        now, config = self._clock(), document.config
        standings = plan_standings(config, findings, self._overrides, now, self._entered)
        text = document.source.encode()
        return self._balancer.plan(config, text, force=force, standings=standings.of)

    def unreadable(self, reason: str) -> None:
        """The document's file cannot be read; what was accepted goes on."""
        self._refuse((PlacedProblem(reason),))

    def cycle(self, findings: Findings, *, compare: bool) -> CycleResult:
        """Brings the kernel to what the accepted document and the findings mean.

        ``compare``: reads all of it before, as is done anyway after a failure. Never raises for
        what the kernel or the disk refuse.
        """
        start = time.perf_counter()
        if self.document is None:
            return CycleResult(CycleOutcome.UNCHANGED, 0.0)
        standings = self._stand(self.document, findings)
        try:
            repair, mended = self._act(self.document, standings, compare)
        except (KernelError, StateError, ProblemsError) as error:
            return self.fail(str(error), time.perf_counter() - start)
        if self._failed:
            self._events.add(EventKind.CYCLE_RECOVERED)
        self._failed, self._settled = "", True
        self._note(repair, compare)
        if mended:
            self._events.add(EventKind.KERNEL_MENDED, message=_summary(repair.change))
        self._tell(standings)
        outcome = CycleOutcome.CHANGED if repair.change else CycleOutcome.UNCHANGED
        if mended:
            outcome = CycleOutcome.MENDED
        seconds, committed = time.perf_counter() - start, repair.committed
        return CycleResult(
            outcome, seconds, repair.change, committed=committed if repair.change else None
        )

    def override(self, name: BackendName, override: Override) -> None:
        """Keeps what the operator says of a backend; the next cycle acts on it.

        Raises StateError, and then it is not said.
        """
        overrides = changed_overrides(self._overrides, name, lambda _: override)
        self._store.save_overrides(overrides)
        self._overrides = overrides

    def _act(self, document: Document, standings: Standings, compare: bool) -> tuple[Outcome, bool]:
        """The repair, and whether it mended what somebody else had changed."""
        shares = self.shares
        if self._settled and not compare:
            if not moved_services(self.standings.of, standings.of) and shares is self._acted:
                return Outcome(Change()), False
            try:
                repair = self._balancer.adjust(standings.of, shares)
                self._acted = shares
                return repair, False
            except StaleError:
                compare = True
        was_settled, self._settled = self._settled, False
        repair = self._balancer.reconcile(document.config, standings.of, shares)
        same = standings.of == self.standings.of and shares is self._acted
        self._acted = shares
        return repair, was_settled and bool(repair.change) and (same or repair.drifted)

    def standings_now(self, findings: Findings) -> Standings:
        """How backends stand in the kernel, with the reasons of the latest findings."""
        if self.document is None:
            return self.standings
        done, now, config = self.standings, self._clock(), self.document.config
        overrides = self._overrides
        latest = plan_standings(config, findings, overrides, now, self._entered, self.standings).of
        # What is found now is true of the kernel only after the next cycle.
        of = {
            name: newer
            if (standing := done.of.get(name)) is None or newer.state is standing.state
            else standing
            for name, newer in latest.items()
        }
        return replace(done, of=of)

    def _stand(self, document: Document, findings: Findings) -> Standings:
        now, config = self._clock(), document.config
        before, overrides = self.standings, self._overrides
        standings = plan_standings(config, findings, overrides, now, self._entered, before)
        back = dict.fromkeys(returned(before.of, standings.of), now)
        if back:
            self._entered |= back
            standings = plan_standings(config, findings, overrides, now, self._entered, standings)
        return standings

    def _tell(self, standings: Standings) -> None:
        before, self.standings = self.standings, standings
        for kind, subject, message, evidence in told_changes(before, standings):
            self._events.add(kind, subject, message, evidence)

    def fail(self, error: str, seconds: float = 0.0) -> CycleResult:
        """A cycle that failed for this reason, which is told once."""
        if error != self._failed:
            self._events.add(EventKind.CYCLE_FAILED, message=error)
        self._failed, self._settled = error, False
        return CycleResult(CycleOutcome.FAILED, seconds, error=error)

    def _note(self, repair: Outcome, compared: bool) -> None:
        problems = [f"{problem.dotted}: {problem.message}" for problem in repair.problems]
        if not compared:
            problems = [p for p in self.problems if not p.startswith(_UNSAVED)]
        if self._balancer.unsaved:
            problems.append(_UNSAVED + self._balancer.unsaved)
        self.problems = tuple(problems)

    def _postpone(self, reason: str) -> None:
        if reason != self.postponed:
            self._events.add(EventKind.CYCLE_FAILED, message=f"the document waits: {reason}")
        self.postponed = reason

    def _refuse(self, problems: tuple[PlacedProblem, ...]) -> None:
        self.postponed = ""
        if self.refused is None or self.refused.problems != problems:
            first = problems[0].message if problems else ""
            self._events.add(EventKind.DOCUMENT_REFUSED, message=first)
            self.refused = Refusal(self._wall(), problems)

    def _forget_overrides(self) -> None:
        """What was said of backends that are gone means nothing any more."""
        kept = {name: o for name, o in self._overrides.items() if name in self.standings.of}
        if kept != self._overrides:
            try:
                self._store.save_overrides(kept)
            except StateError:
                return
            self._overrides = kept


_UNSAVED = "not remembered on disk: "


def _summary(change: Change) -> str:
    return "put back " + " and ".join(change.parts)
