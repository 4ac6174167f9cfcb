"""What the checker knows of each probe that it repeats, and of each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from tula.health.check import Check, FailureKind, Outcome, ProbeView
from tula.health.diagnosis import can_diagnose
from tula.health.machine import ProbeState, ProbeVerdict, decided, evidence_of, warning_of
from tula.health.resuming import is_recent
from tula.health.timing import Durations
from tula.health.words import advised
from tula.model.advice import Admin, Advice
from tula.model.config import IPAddress
from tula.model.health import BackendName, Health
from tula.model.monitor import HealthPolicy

_DIAGNOSIS = 30.0
"""Seconds for which a diagnosis holds, if the evidence stays the same."""
_SOONER = 5.0
"""The same if the evidence is another, or the other ways could not be asked."""


class ScheduledProbe:
    """One probe, sent again and again for all backends that share it."""

    __slots__ = (
        "_diagnosed",
        "_diagnosed_at",
        "_unasked",
        "advice",
        "backends",
        "check",
        "diagnosing",
        "diagnosis",
        "due",
        "durations",
        "failed",
        "impeded",
        "late",
        "outcome",
        "paused",
        "pauses",
        "resumed",
        "state",
        "task",
        "timer",
    )

    def __init__(self, check: Check) -> None:
        self.check = check
        self.backends: list[MonitoredBackend] = []
        self.durations: Durations | None = None
        self.state = ProbeState()
        self.outcome: Outcome | None = None
        self.advice: Advice | None = None  # what it has come to say; None: nothing yet
        self.diagnosis = ""  # what diagnosis found
        self.failed = 0
        self.impeded = float("-inf")  # until when it could not be sent, as far as is known
        self.paused = False
        self.pauses = 0
        self.resumed: float | None = None  # until it has passed, or its failures count again
        self.due = 0.0
        self.late = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.diagnosing: asyncio.Task[None] | None = None
        self._diagnosed = ""
        self._diagnosed_at = 0.0
        self._unasked = False

    @property
    def up(self) -> bool | None:
        """What it has decided: by its outcomes, or as an agent has said."""
        if self.check.settings.auxiliary:
            return None if self.advice is None else self.advice.up
        return self.state.up

    def without_drain(self, outcome: Outcome) -> Outcome:
        """The outcome; one that drains has failed where no backend is up.

        What is down stays down, as with HAProxy's disable-on-404.
        """
        if not outcome.drains or self.check.settings.auxiliary:
            return outcome
        if self.state.up is not False and any(each.up is not False for each in self.backends):
            return outcome
        evidence = f"{outcome.evidence}: drains a backend that is up, and brings none up"
        return Outcome(False, evidence, outcome.seconds, outcome.warning, FailureKind.ANSWER)

    def follow(self, other: ScheduledProbe) -> None:
        """Goes on as that one stands."""
        self.state, self.outcome, self.advice = other.state, other.outcome, other.advice

    def seed(self, known: Iterable[Advice]) -> None:
        """Takes what a check in its place has said before, until it has an answer of its own."""
        for each in known:
            if each.check == self.check.monitor and each.who == self._who:
                self.advice = each

    def heed(self, outcome: Outcome) -> bool:
        """Takes what an outcome says beside pass and fail; whether weight or drain changed.

        While it fails, the last word holds; once it is down, what a check has said is forgotten.
        """
        settings, before = self.check.settings, self.advice
        if not settings.advises:
            return False
        if outcome.words is not None:
            start = before or Advice(self.check.monitor, self._who)
            self.advice = advised(
                start, outcome.words, outcome.evidence, auxiliary=settings.auxiliary
            )
        elif self.state.up is False and not settings.auxiliary:
            self.advice = None
        return _asked(before) != _asked(self.advice)

    @property
    def _who(self) -> str:
        return "its agent" if self.check.settings.auxiliary else "its check"

    def heed_obstacle(self, now: float) -> None:
        """Where this machine cannot ask, the verdict stays; what spoke against it is forgotten.

        Failures from before may have had the same reason: they must not count later.
        """
        if self.check.obstacle or self.paused:
            self.impeded = now
        if self.check.obstacle:
            self.pauses += not self.paused
            self.paused, self.resumed = True, None
            self.state = replace(self.state, passes=0, failures=0)
            self.outcome = Outcome(None, self.check.obstacle)
        elif self.paused:
            self.paused, self.resumed = False, now

    def begin_diagnosis(self, now: float) -> bool:
        """Whether it is time to ask why it is down; if so, it counts as asked."""
        failed = self.outcome
        if failed is None or failed.passed is not False or self.state.up is not False:
            return False
        if self.diagnosing is not None or not can_diagnose(self.check.settings, self.check.direct):
            return False
        changed = failed.evidence != self._diagnosed
        wait = _SOONER if changed or self._unasked else _DIAGNOSIS
        if self._diagnosed and now < self._diagnosed_at + wait:
            return False
        if changed:
            self.diagnosis = ""
        self._diagnosed, self._diagnosed_at = failed.evidence, now
        return True

    def end_diagnosis(self, found: str | None) -> None:
        """Takes what ``diagnose`` found."""
        self.diagnosis, self._unasked = found or "", found is None

    def forget_diagnosis(self) -> None:
        """It is up again: the next failure may have another reason."""
        self._diagnosed = self.diagnosis = ""

    def shown(self) -> tuple[object, ...]:
        """What findings show of it: while this is the same, so are they."""
        outcome = self.outcome
        of = (outcome.passed, outcome.evidence, outcome.warning) if outcome is not None else ()
        return self.state.up, self.advice, self.diagnosis, self._diagnosed, of

    def verdict(self) -> ProbeVerdict:
        """What it says of a backend now."""
        outcome = self.outcome
        if self.up is False and self.advice is not None and self.advice.evidence:
            return ProbeVerdict(False, outcome, self.advice.evidence)
        if outcome is None:
            return ProbeVerdict(self.up)
        evidence = outcome.evidence
        if self.diagnosis and outcome.evidence == self._diagnosed:
            evidence = f"{evidence}; {self.diagnosis}"
        return ProbeVerdict(self.up, outcome, evidence)

    def stop(self) -> None:
        """Cancels all of it that is under way or due."""
        if self.timer is not None:
            self.timer.cancel()
        for task in (self.task, self.diagnosing):
            if task is not None:
                task.cancel()

    def view(self) -> ProbeView:
        state = self.state
        return ProbeView(
            kind=self.check.settings.type,
            target=self.check.target,
            backends=tuple(dict.fromkeys(backend.name for backend in self.backends)),
            up=self.up,
            outcome=self.outcome,
            passes=state.passes,
            failures=state.failures,
            failed=self.failed,
            flaps=state.flaps,
            late=self.late,
        )


class MonitoredBackend:
    """One backend of one service, and the probes that decide about it."""

    __slots__ = (
        "_finding",
        "_positions",
        "_require_all",
        "adopted",
        "monitors",
        "name",
        "since",
        "up",
    )

    def __init__(
        self,
        name: BackendName,
        monitors: dict[int, list[ScheduledProbe]],
        policy: HealthPolicy,
        adopted: Health | None,
        now: float,
    ) -> None:
        self.name = name
        self._positions = sorted(monitors)
        self.monitors = [monitors[position] for position in self._positions]
        self.adopted = adopted
        self.up = adopted.up if adopted is not None else None
        self.since = adopted.since if adopted is not None else now
        self._require_all = policy.require_all
        self._finding: Health | None = None

    def recount(self, now: float) -> bool:
        """Combines the probes anew; whether ``up`` changed."""
        up = self._decided()
        if up is None or up is self.up:
            # Undecided: what was adopted, or decided before, holds until it is decided.
            return False
        self.up, self.since, self._finding = up, now, None
        return True

    def _decided(self) -> bool | None:
        verdicts: tuple[list[list[bool | None]], list[list[bool | None]]] = ([], [])
        for targets in self.monitors:
            auxiliary = targets[0].check.settings.auxiliary
            verdicts[auxiliary].append([probe.up for probe in targets])
        checks, agents = verdicts
        return decided(checks, (up for targets in agents for up in targets), self._require_all)

    @property
    def advice(self) -> tuple[Advice, ...]:
        """What its probes have come to say."""
        return tuple(
            replace(probe.advice, check=position)
            for position, targets in zip(self._positions, self.monitors, strict=True)
            for probe in targets
            if probe.advice is not None and not probe.advice.plain
        )

    def forget_finding(self) -> None:
        """One of its probes shows something else now."""
        self._finding = None

    def finding(self) -> Health:
        """How it stands; the same object until something has changed."""
        if self._finding is None:
            self._finding = self._find()
        return self._finding

    def _find(self) -> Health:
        monitors = [[probe.verdict() for probe in targets] for targets in self.monitors]
        evidence = evidence_of(self.up, monitors)
        adopted = self.adopted
        if adopted is not None and self._decided() is None and self.up is adopted.up:
            evidence = adopted.evidence or evidence
        return Health(self.up, self.since, evidence, warning_of(monitors), self.advice)

    def was_impeded(self, now: float) -> bool:
        """Whether one of its probes cannot be sent, or could not a short while ago."""
        probes = (probe for targets in self.monitors for probe in targets)
        return any(probe.paused or is_recent(probe.impeded, now) for probe in probes)

    def addresses(self) -> frozenset[IPAddress]:
        """Its own, as far as its checks tell."""
        return own_addresses(probe.check for targets in self.monitors for probe in targets)


def _asked(advice: Advice | None) -> tuple[object, ...]:
    """What of it changes how a backend is used, beside up and down."""
    return (None, Admin.READY) if advice is None else (advice.weight, advice.admin)


def own_addresses(checks: Iterable[Check]) -> frozenset[IPAddress]:
    """The backend's own addresses among the checks' targets."""
    return frozenset(
        (check.direct or check.target).address
        for check in checks
        if check.direct is not None or check.target.source is None
    )
