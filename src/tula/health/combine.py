"""From a backend's probes to one verdict, and the line that tells why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tula.health.outcome import Outcome

_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one probe of a backend says: decided, and by which outcome."""

    up: bool | None
    outcome: Outcome | None = None
    evidence: str = ""


Monitors = Sequence[Sequence[Verdict]]
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
    told = [verdict for verdict in verdicts if verdict.evidence]
    # Of what is up, one that says so: another may fail without counting.
    fitting = [verdict.evidence for verdict in told if verdict.up is up]
    return next(iter(fitting or (verdict.evidence for verdict in told)), "")


def warning_of(monitors: Monitors) -> str:
    """What is wrong and does not count, once each."""
    found: dict[str, None] = {}
    for verdict in (verdict for targets in monitors for verdict in targets):
        outcome = verdict.outcome
        if outcome is not None and outcome.passed is None:
            found[f"not asked: {outcome.evidence}"] = None
        elif outcome is not None and outcome.warning:
            found[outcome.warning] = None
    return "; ".join(list(found)[:_WARNINGS])
