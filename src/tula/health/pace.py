"""Bounds how often something is done, however often it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pace:
    """Does it at once the first time, and then once a pause for all that is asked meanwhile."""

    def __init__(self, work: Callable[[], None], pause: float) -> None:
        """``pause`` is in seconds of the loop's clock."""
        self._work = work
        self._pause = pause
        self._not_before = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Asks for it, now or when the pause is over."""
        if self._timer is None:
            if loop.time() >= self._not_before:
                self._do(loop)
            else:
                self._timer = loop.call_at(self._not_before, self._do, loop)

    def stop(self) -> None:
        """What is asked for and not done is not done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _do(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._not_before = loop.time() + self._pause
        self._work()
