"""Waiting: for conditions, never on the clock; and for coroutines on the lab's event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tula.lab.guard import LabError

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Call ``condition`` until it answers something true, and return that.

    Raises ``LabError`` naming ``what`` after ``timeout`` seconds. The pauses grow from 1 to 50 ms.
    """
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            name = what or getattr(condition, "__name__", "the condition")
            raise LabError(f"waited {timeout:g} s for {name}, in vain")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def event_loop() -> asyncio.AbstractEventLoop:
    """The lab's loop, started on first use; its thread is a daemon and ends with the process.

    The thread never changes its namespace: sockets are made inside hosts by the callers and
    handed to it.
    """
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="lab-loop", daemon=True).start()
        return _loop


def on_loop(work: Coroutine[Any, Any, T], timeout: float | None = 60.0) -> T:
    """Run a coroutine on the lab's loop and wait for its result in the calling thread."""
    future = asyncio.run_coroutine_threadsafe(work, event_loop())
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise
