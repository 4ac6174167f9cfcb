"""Tells systemd how the daemon stands: sd_notify without its library."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

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
