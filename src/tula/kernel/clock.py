"""Two clocks. What runs is timed by the boot clock: somebody sets the other one.

Times that are decided by (a drain's deadline, the steps of a slow start, how long a number is
kept) are in seconds of the boot clock in memory. On disk they are kept with both, since the boot
clock starts again at each boot: see ``keep_time``. Times that people read are in seconds since the
epoch.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


def boot_time() -> float:
    """Seconds since this machine was started, those that it was suspended included."""
    # Not time.monotonic, which stands still meanwhile: the flow tables' timeouts do not, nor does
    # an operator's patience.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock(Protocol):
    """One machine's clocks."""

    def boot(self) -> float:
        """See ``boot_time``; only of use beside the ``boot_id`` of the same boot."""

    def wall(self) -> float:
        """Seconds since the epoch, as far as somebody has set it right."""

    def boot_id(self) -> str:
        """Another one after each start of the machine; empty where the kernel does not tell."""


class SystemClock:
    """The kernel's."""

    _boot_id: str | None = None

    def boot(self) -> float:
        return boot_time()

    def wall(self) -> float:
        return time.time()

    def boot_id(self) -> str:
        if self._boot_id is None:
            try:
                self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            except OSError:
                self._boot_id = ""
        return self._boot_id


def to_wall(clock: Clock, at: float) -> float:
    """When that is or was, by the wall clock as it is set now."""
    return clock.wall() + at - clock.boot()


def to_boot(clock: Clock, at: float, kept: float | None, boot_id: str) -> float:
    """A kept time on today's boot clock.

    ``at`` is by the wall clock; ``kept`` by the boot clock of ``boot_id``, None where an earlier
    version of Tula kept it. Of another boot, or without its id, the wall clock has to do.
    """
    if kept is not None and boot_id and boot_id == clock.boot_id():
        return kept
    return clock.boot() + at - clock.wall()
