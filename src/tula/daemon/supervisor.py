"""Keeps background tasks running: one that fails is told of, and started again."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable

import structlog

from tula.daemon.triggers import wait_after
from tula.engine.event_log import EventLog
from tula.model.event import EventKind

Sleep = Callable[[float], Awaitable[object]]
_STEADY = 60.0
"""Seconds after which a task that was started again counts as running well."""


class Supervisor:
    """Counts failures by task, writes an event and the log, and waits longer each time."""

    def __init__(self, events: EventLog, sleep: Sleep = asyncio.sleep) -> None:
        self._events = events
        self._sleep = sleep
        self.restarts: dict[str, int] = {}

    async def keep(self, name: str, task: Callable[[], Awaitable[object]]) -> None:
        """Runs the task until this is cancelled. One that returns has failed, too."""
        failures, loop = 0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await task()
                reason = "it ended by itself"
            except Exception as error:
                reason = self.failed(name, error)
            else:
                self._tell(name, reason)
            if loop.time() - began > _STEADY:
                failures = 0
            await self._sleep(wait_after(failures))
            failures += 1

    def failed(self, name: str, error: Exception) -> str:
        """Tells of a failure of a task that whoever runs it starts again; the reason in a line."""
        text = "".join(traceback.format_exception(error))
        structlog.get_logger("tula").error("bug", task=name, traceback=text)
        reason = repr(error)
        self._tell(name, reason)
        return reason

    def _tell(self, name: str, reason: str) -> None:
        self.restarts = {**self.restarts, name: self.restarts.get(name, 0) + 1}
        self._events.add(EventKind.TASK_FAILED, name, "failed, and is started again", reason)
