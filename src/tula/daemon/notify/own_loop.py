"""An event loop whose name look-ups may hang for ever: they keep neither it nor the process."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_MOST = 8
"""Look-ups that may hang at a time."""


class OwnLoop(asyncio.SelectorEventLoop):
    """asyncio's own would wait for its threads when the process ends."""

    def __init__(self) -> None:
        super().__init__()
        self._hanging = 0

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """As ``socket.getaddrinfo``; may be cancelled while it hangs."""
        if self._hanging >= _MOST:
            raise socket.gaierror(socket.EAI_AGAIN, "names cannot be resolved: DNS hangs")
        self._hanging += 1

        def ended() -> None:
            self._hanging -= 1

        return await in_thread(
            self, lambda: socket.getaddrinfo(host, port, family, type, proto, flags), ended
        )


async def in_thread(
    loop: asyncio.AbstractEventLoop, work: Callable[[], T], ended: Callable[[], None] = lambda: None
) -> T:
    """Runs it in a thread that nobody waits for at the end; ``ended`` is called in the loop once
    it really has ended, even when the waiting was given up."""
    found: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        ended()
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as problem:
            error = problem
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop has ended

    threading.Thread(target=run, name="notify-wait", daemon=True).start()
    return await found
