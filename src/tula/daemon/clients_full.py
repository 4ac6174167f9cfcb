"""Whether new clients are not remembered, for a table of persistent clients is full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tula.engine.event_log import EventLog
from tula.model.event import EventKind
from tula.model.stats import CLIENTS_FULL, Count

_OVER = 300.0
"""Seconds without another one, after which it is over."""
_FIX = "raise connections.size, or shorten persistence.timeout"


@dataclass
class ClientsFull:
    """Notes the counter of such clients; tells of it once, until it is over."""

    events: EventLog
    _seen: int | None = None
    _last: float | None = None

    def note(self, counters: Mapping[str, Count], now: float) -> None:
        """The counters at ``now`` (monotonic)."""
        count = counters.get(CLIENTS_FULL, Count()).packets
        if self._seen is not None and count > self._seen:
            if self._last is None:
                message = "new clients go by hash, and are not remembered"
                self.events.add(EventKind.CLIENTS_FULL, message=message)
            self._last = now
        elif self._last is not None and now - self._last > _OVER:
            self._last = None
        # A table that was made anew counts from 0.
        self._seen = count

    @property
    def problems(self) -> tuple[str, ...]:
        """For status."""
        if self._last is None:
            return ()
        return (
            f"a table of persistent clients is full: new clients go by hash, and may move; {_FIX}",
        )
