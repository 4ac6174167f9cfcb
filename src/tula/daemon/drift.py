"""Looks from time to time whether the kernel is still as the last change left it.

Events tell of most that others change; this finds what no event told of. All that is read for it
is read beside the writer, which failovers wait for, and which gets work only if something differs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tula.daemon.answers import Comparison
from tula.daemon.snapshot import Snapshot
from tula.model.errors import KernelError, StateError

_TRIES = 5
"""Comparisons that a change of the daemon's own may have spoiled, before the writer compares."""
_PAUSE = 2.0


class DriftDetector:
    """Runs in the event loop."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        compare: Callable[[], Awaitable[Comparison]],
        repair: Callable[[], None],
        interval: float,
        pause: float = _PAUSE,
    ) -> None:
        """``compare`` may raise KernelError and StateError.

        ``interval``: seconds between looks; ``pause``: before one that was spoiled is repeated.
        """
        self._snapshot = snapshot
        self._compare = compare
        self._repair = repair
        self._interval = interval
        self._pause = pause

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if await self.has_drifted():
                self._repair()

    async def has_drifted(self) -> bool:
        """Whether the writer should compare: something differs, or nobody else could tell."""
        for _ in range(_TRIES):
            before = self._snapshot()
            if before.configuration is None or before.applied is None or before.unsaved:
                return True
            try:
                found = await self._compare()
            except (KernelError, StateError):
                return True  # the writer's cycle tells what is wrong
            if not found.differs and found.problems == before.obstacles:
                return False
            if self._snapshot().revision == before.revision:
                return True
            await asyncio.sleep(self._pause)
        return True
