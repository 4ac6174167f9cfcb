"""Tells systemd how the daemon is: sd_notify and the watchdog, without its library.

The watchdog hears from the daemon only while both its event loop and its writer are alive. A
writer that is busy is not dead: the largest change takes minutes, and nft has a time limit of its
own. One that has been at the same piece of work for longer than WRITER_LIMIT is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

WRITER_LIMIT = 300.0
"""Seconds of one piece of work, after which the writer counts as dead."""

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Sends lines such as ``READY=1`` or ``STATUS=…``; False when nobody listens for them.

    Never raises: a daemon that cannot say how it stands goes on.
    """
    where = environment.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return False
    # An abstract socket's name starts with a NUL, which no environment can hold.
    address = "\0" + where[1:] if where.startswith("@") else where
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def reloading() -> tuple[str, ...]:
    """The lines that say a reload began; ``READY`` says that it is done."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_interval(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life, half of what systemd waits; None: it does not wait."""
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        pid = int(environment.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and pid == os.getpid() else None


async def keep_watchdog(
    interval: float,
    busy_seconds: Callable[[], float],
    tell: Callable[[str], object] = notify,
) -> None:
    """Gives signs of life from the event loop until it is cancelled.

    ``busy_seconds``: for how long the writer has been at its present piece of work.
    """
    while True:
        if busy_seconds() < WRITER_LIMIT:
            tell(WATCHDOG)
        await asyncio.sleep(interval)
