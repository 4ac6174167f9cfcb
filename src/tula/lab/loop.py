"""One asyncio loop in one thread, on which all servers of the process and bulk clients run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

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
