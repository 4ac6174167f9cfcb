"""A control served on a real socket, by a thread, as the daemon serves it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tula.api.server import serve
from tula.engine.audit import AuditLog
from tula.engine.control import Control


@contextmanager
def served(control: Control, run_dir: Path, audit: AuditLog | None = None) -> Iterator[None]:
    """The control answers on the run directory's socket in the block."""
    started = threading.Event()
    stop: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()

    async def main() -> None:
        ready = asyncio.Event()
        stop.append(asyncio.create_task(serve(control, run_dir, None, ready, audit=audit)))
        await ready.wait()
        started.set()
        with suppress(asyncio.CancelledError):
            await stop[0]

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert started.wait(30)
        yield
    finally:
        loop.call_soon_threadsafe(stop[0].cancel)
        thread.join(30)
        loop.close()
