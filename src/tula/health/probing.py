"""What the checker remembers of each probe and of each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tula.health.check import Check, ProbeView
from tula.health.combine import Verdict, combined, evidence_of, warning_of
from tula.health.diagnose import can_diagnose
from tula.health.machine import Count
from tula.health.outcome import Outcome
from tula.model.config import HealthPolicy, IPAddress
from tula.model.health import BackendName, Finding

_DIAGNOSIS = 30.0
"""Seconds for which the fault that was found holds, if the evidence stays the same."""
_DIAGNOSIS_CHANGED = 5.0


class Probing:
    """One probe, sent again and again for all backends that want it."""

    __slots__ = (
        "_diagnosed",
        "_diagnosed_at",
        "check",
        "count",
        "due",
        "failed",
        "fault",
        "late",
        "outcome",
        "task",
        "timer",
        "twin",
        "wanted",
    )

    def __init__(self, check: Check) -> None:
        self.check = check
        self.wanted: list[Watched] = []
        self.count = Count()
        self.outcome: Outcome | None = None
        self.fault = ""  # what diagnosis named
        self.failed = 0
        self.due = 0.0
        self.late = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.twin: asyncio.Task[None] | None = None
        self._diagnosed = ""
        self._diagnosed_at = 0.0

    def begin_diagnosis(self, now: float) -> bool:
        """Whether it is time to ask why it is down; if so, it counts as asked."""
        failed = self.outcome
        if failed is None or failed.passed is not False or self.count.up is not False:
            return False
        if self.twin is not None or not can_diagnose(self.check.settings, self.check.direct):
            return False
        changed = failed.evidence != self._diagnosed
        wait = _DIAGNOSIS_CHANGED if changed else _DIAGNOSIS
        if self._diagnosed and now < self._diagnosed_at + wait:
            return False
        if changed:
            self.fault = ""
        self._diagnosed, self._diagnosed_at = failed.evidence, now
        return True

    def forget_diagnosis(self) -> None:
        """It is up again: the next fault is another."""
        self._diagnosed = self.fault = ""

    def shown(self) -> tuple[object, ...]:
        """What findings show of it: while this is the same, so are they."""
        outcome = self.outcome
        of = (outcome.passed, outcome.evidence, outcome.warning) if outcome is not None else ()
        return self.count.up, self.fault, self._diagnosed, of

    def verdict(self) -> Verdict:
        """What it says of a backend now."""
        outcome = self.outcome
        if outcome is None:
            return Verdict(self.count.up)
        evidence = outcome.evidence
        if self.fault and outcome.evidence == self._diagnosed:
            evidence = f"{evidence}; {self.fault}"
        return Verdict(self.count.up, outcome, evidence)

    def stop(self) -> None:
        """Nothing of it is under way any more."""
        if self.timer is not None:
            self.timer.cancel()
        for task in (self.task, self.twin):
            if task is not None:
                task.cancel()

    def view(self) -> ProbeView:
        count = self.count
        return ProbeView(
            kind=self.check.settings.type,
            target=self.check.target,
            backends=tuple(dict.fromkeys(watched.name for watched in self.wanted)),
            up=count.up,
            outcome=self.outcome,
            passes=count.passes,
            failures=count.failures,
            failed=self.failed,
            flaps=count.flaps,
            late=self.late,
        )


class Watched:
    """One backend of one service, and the probes that it stands by."""

    __slots__ = ("_finding", "_require_all", "adopted", "monitors", "name", "since", "up")

    def __init__(
        self,
        name: BackendName,
        monitors: dict[int, list[Probing]],
        policy: HealthPolicy,
        adopted: Finding | None,
        now: float,
    ) -> None:
        self.name = name
        self.monitors = [monitors[position] for position in sorted(monitors)]
        self.adopted = adopted
        self.up = adopted.up if adopted is not None else None
        self.since = adopted.since if adopted is not None else now
        self._require_all = policy.require_all
        self._finding: Finding | None = None

    def recount(self, now: float) -> bool:
        """Combines the probes anew; whether ``up`` changed."""
        monitors = ((probing.count.up for probing in targets) for targets in self.monitors)
        up = combined(monitors, self._require_all)
        if up is None or up is self.up:
            # Undecided: what was adopted, or decided before, holds until it is decided.
            return False
        self.up, self.since, self._finding = up, now, None
        return True

    def forget_finding(self) -> None:
        """One of its probes shows something else now."""
        self._finding = None

    def finding(self) -> Finding:
        """How it stands; the same object until something has changed."""
        if self._finding is None:
            self._finding = self._find()
        return self._finding

    def _find(self) -> Finding:
        monitors = [[probing.verdict() for probing in targets] for targets in self.monitors]
        evidence = evidence_of(self.up, monitors)
        decided = combined(
            ([verdict.up for verdict in targets] for targets in monitors), self._require_all
        )
        if self.adopted is not None and decided is None and self.up is self.adopted.up:
            evidence = self.adopted.evidence or evidence
        return Finding(self.up, self.since, evidence, warning_of(monitors))

    def addresses(self) -> frozenset[IPAddress]:
        """Its own, as far as its checks tell."""
        return own_addresses(probing.check for targets in self.monitors for probing in targets)


def own_addresses(checks: Iterable[Check]) -> frozenset[IPAddress]:
    """The backend's own addresses among the checks' targets."""
    return frozenset(
        (check.direct or check.target).address
        for check in checks
        if check.direct is not None or check.target.source is None
    )
