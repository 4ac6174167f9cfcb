"""Waiting on conditions, never on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

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
            raise LabError(f"waited {timeout:g} s in vain for {name}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
