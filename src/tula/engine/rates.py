"""Packets and bytes a second, from two readings of the counters."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from tula.model.stats import BackendKey, Count

Counts = Mapping[BackendKey, Count]

LEAST = 0.9
"""Seconds between two readings that tell a rate."""
_OLDEST = 120.0
"""Seconds after which a reading tells nothing of now."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Packets and bytes a second."""

    packets: float
    bytes: float


Rates = Mapping[BackendKey, Rate]


def rates_between(before: Counts, now: Counts, seconds: float) -> Rates:
    """The rates; a counter that has fallen was made anew, and counts from 0."""
    found: dict[BackendKey, Rate] = {}
    for key, count in now.items():
        old = before.get(key, Count())
        if count.packets < old.packets or count.bytes < old.bytes:
            old = Count()
        packets, octets = count.packets - old.packets, count.bytes - old.bytes
        found[key] = Rate(packets / seconds, octets / seconds)
    return found


class RateMeter:
    """Keeps the last readings. For one thread."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, Counts]] = deque(maxlen=2)

    def note(self, now: float, counts: Counts) -> Rates | None:
        """A reading at ``now`` (monotonic, in seconds): the rates since an earlier one, None while
        there is none that is old enough, and not too old."""
        rates = None
        for then, before in reversed(self._readings):
            if LEAST <= now - then <= _OLDEST:
                rates = rates_between(before, counts, now - then)
                break
        if not self._readings or now - self._readings[-1][0] >= LEAST:
            self._readings.append((now, counts))
        return rates
