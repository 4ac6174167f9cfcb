"""What a failure means shortly after this machine's own way to the backends was cut.

Pure: time is passed in, in seconds of the loop's clock.
"""

from __future__ import annotations

_RESOLVING = 3.0
"""Seconds in which a neighbour may still be asked for its MAC: three requests, a second apart
(``mcast_solicit`` and ``retrans_time_ms``, arp(7)); the first are lost where a switch's port comes
up later than ours."""
_SPANNING_TREE = 35.0
"""Seconds in which a switch may pass nothing at all: 2 × 15 s forward delay (IEEE 802.1D)."""

STILL_COMING = "the way there has just come back, so this does not count"


class Resuming:
    """Since when probes are sent again, and since when some of them pass.

    A backend that was up is not down because a switch port learns: its flows would be reset, and
    those of the last ones go wherever the first that answers is.
    """

    def __init__(self) -> None:
        self._passed = self._impeded = float("-inf")

    def impeded(self, now: float) -> None:
        """Some probes cannot be sent, or just could not."""
        self._impeded = now

    def was_impeded(self, now: float) -> bool:
        """Whether the way was cut a short while ago."""
        return now - self._impeded < _SPANNING_TREE

    def passed(self, now: float) -> None:
        """A probe has passed: the network carries packets."""
        self._passed = now

    def counts(self, resumed: float, now: float) -> bool:
        """Whether a failure speaks against a backend, of a probe that is sent again since
        ``resumed`` and has not passed since."""
        network_is_back = self._passed >= resumed
        return now - resumed >= (_RESOLVING if network_is_back else _SPANNING_TREE)
