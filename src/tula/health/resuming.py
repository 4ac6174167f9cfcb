"""What a failure means shortly after this machine's own way to the backends was cut.

Pure: time is passed in, in seconds of the loop's clock.
"""

from __future__ import annotations

from collections.abc import Collection

_RESOLVING = 3.0
"""Seconds in which a neighbour may still be asked for its MAC: three requests, a second apart
(``mcast_solicit`` and ``retrans_time_ms``, arp(7)); the first are lost where a switch's port comes
up later than ours."""
_SPANNING_TREE = 35.0
"""Seconds in which a switch may pass nothing at all: 2 × 15 s forward delay (IEEE 802.1D)."""

STILL_COMING = "the way there has just come back, so this does not count"


def is_recent(impeded: float, now: float) -> bool:
    """Whether the way may still be affected by what cut it until ``impeded``."""
    return now - impeded < _SPANNING_TREE


class Resuming:
    """When probes last passed, by service.

    A backend that was up is not down because a switch port does not forward yet. Where others of
    its service answer, it is: they serve. Elsewhere they may answer all the time.
    """

    def __init__(self) -> None:
        self._passed: dict[str, float] = {}

    def passed(self, services: Collection[str], now: float) -> None:
        """A probe of these services has passed: the network carries packets."""
        self._passed.update(dict.fromkeys(services, now))

    def counts(self, services: Collection[str], resumed: float, now: float) -> bool:
        """Whether a failure speaks against a backend, of a probe that is sent again since
        ``resumed`` and has not passed since."""
        is_back = any(self._passed.get(name, float("-inf")) >= resumed for name in services)
        return now - resumed >= (_RESOLVING if is_back else _SPANNING_TREE)
