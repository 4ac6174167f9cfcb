"""Consecutive passes and failures to up and down, and when to ask again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tula.model.config import HealthMonitor

_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Count:
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


def counted(count: Count, passed: bool, settings: HealthMonitor) -> Count:
    """The count after one more outcome."""
    passes = count.passes + 1 if passed else 0
    failures = 0 if passed else count.failures + 1
    up = count.up
    if passes >= settings.rise:
        up = True
    elif failures >= settings.fall:
        up = False
    flap = count.up is not None and up is not count.up
    return Count(up, passes, failures, count.flaps + flap)


def pause(count: Count, settings: HealthMonitor) -> float:
    """Seconds from one probe to the next."""
    if count.changing and settings.fast_interval is not None:
        return settings.fast_interval
    return settings.interval


def next_due(due: float, now: float, count: Count, settings: HealthMonitor, chance: float) -> float:
    """When the probe that was due at ``due`` and ended at ``now`` is due again.

    ``chance`` is random, 0 to 1: the pause varies by a tenth either way, so that probes that met
    part again, and from due to due, so that the mean is kept. A probe that took longer than its
    interval is due at once.
    """
    return max(due + pause(count, settings) * (1 + _JITTER * (2 * chance - 1)), now)


def first_due(
    now: float, position: int, total: int, settings: HealthMonitor, chance: float
) -> float:
    """When the probe at ``position`` of ``total`` new ones is due: spread over the first pause."""
    return now + pause(Count(), settings) * (position + chance) / total
