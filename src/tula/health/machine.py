"""From outcomes to up and down, of one probe and of a backend, and when to probe again. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tula.health.check import Outcome
from tula.model.monitor import HealthMonitor

_JITTER = 0.1
_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What a probe's outcomes come to; ``up`` is None until enough agree.

    ``passes`` and ``failures`` are consecutive, one of them is 0. ``flaps`` counts the changes
    after the first decision.
    """

    up: bool | None = None
    passes: int = 0
    failures: int = 0
    flaps: int = 0

    @property
    def changing(self) -> bool:
        """Whether the state is unknown, or the last outcomes were against it."""
        if self.up is None:
            return True
        return self.failures > 0 if self.up else self.passes > 0


def advanced(state: ProbeState, passed: bool, settings: HealthMonitor) -> ProbeState:
    """The state after one more outcome."""
    passes = state.passes + 1 if passed else 0
    failures = 0 if passed else state.failures + 1
    up = state.up
    if passes >= settings.rise:
        up = True
    elif failures >= settings.fall:
        up = False
    flap = state.up is not None and up is not state.up
    return ProbeState(up, passes, failures, state.flaps + flap)


def pause(state: ProbeState, settings: HealthMonitor) -> float:
    """Seconds from one probe to the next."""
    if state.changing and settings.fast_interval is not None:
        return settings.fast_interval
    return settings.interval


def next_due(
    due: float, now: float, state: ProbeState, settings: HealthMonitor, chance: float
) -> float:
    """When the probe that was due at ``due`` and ended at ``now`` is due again.

    ``chance`` is random, 0 to 1: the pause varies by a tenth either way, so that probes that met
    part again, and from due to due, so that the mean is kept. A probe that took longer than its
    interval is due at once.
    """
    return max(due + pause(state, settings) * (1 + _JITTER * (2 * chance - 1)), now)


def first_due(
    now: float, position: int, total: int, settings: HealthMonitor, chance: float
) -> float:
    """When the probe at ``position`` of ``total`` new ones is due: spread over the first pause."""
    return now + pause(ProbeState(), settings) * (position + chance) / total


@dataclass(frozen=True, slots=True)
class ProbeVerdict:
    """What one probe of a backend says: decided, and by which outcome."""

    up: bool | None
    outcome: Outcome | None = None
    evidence: str = ""


Monitors = Sequence[Sequence[ProbeVerdict]]
"""Of each monitor, its probes: one for each target."""


def combined(monitors: Iterable[Iterable[bool | None]], require_all: bool) -> bool | None:
    """Whether a backend is up; None while that is open.

    A monitor passes when all of its targets do. With ``require_all`` all monitors must pass, else
    any one.
    """
    verdicts = [_all(targets) for targets in monitors]
    if require_all:
        return _all(verdicts)
    if any(verdicts):
        return True
    return None if None in verdicts else False


def decided(
    monitors: Iterable[Iterable[bool | None]],
    agents: Iterable[bool | None],
    require_all: bool,
) -> bool | None:
    """The same with agents, of which each has said up, down, or neither.

    What one has said to be down is. None makes a backend up whose checks do not pass; without any
    check, up is what they say.
    """
    said, checks = set(agents), list(monitors)
    if False in said:
        return False
    if not checks:
        return True if True in said else None
    return combined(checks, require_all)


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    seen = set(verdicts)
    if False in seen:
        return False
    return None if None in seen else True


def evidence_of(up: bool | None, monitors: Monitors) -> str:
    """One line: of what is down the first probe that is, else the last thing that was seen."""
    verdicts = [verdict for targets in monitors for verdict in targets]
    if up is False:
        down = [verdict.evidence for verdict in verdicts if verdict.up is False]
        more = f" (and {len(down) - 1} more)" if len(down) > 1 else ""
        return f"{down[0]}{more}" if down else ""
    known = [verdict for verdict in verdicts if verdict.evidence]
    # Of what is up, one that says so: another may fail without counting.
    fitting = [verdict.evidence for verdict in known if verdict.up is up]
    return next(iter(fitting or (verdict.evidence for verdict in known)), "")


def warning_of(monitors: Monitors) -> str:
    """What is wrong and does not count, once each."""
    found: dict[str, None] = {}
    for verdict in (verdict for targets in monitors for verdict in targets):
        outcome = verdict.outcome
        if outcome is not None and outcome.passed is None:
            found[f"not checked: {outcome.evidence}"] = None
        elif outcome is not None and outcome.warning:
            found[outcome.warning] = None
    return "; ".join(list(found)[:_WARNINGS])
