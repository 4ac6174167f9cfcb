"""Errors of Tula's own in probes: counted, and logged once a minute at most."""

from __future__ import annotations

import time
import traceback
from pathlib import PurePath

import structlog

_QUIET = 60.0
"""Seconds between two log lines of the same error."""
_FRAMES = 4


class ErrorLog:
    """Counts them; ``count`` never falls."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("tula")
        self._quiet_until: dict[str, float] = {}
        self.count = 0

    def record(self, subject: str, error: BaseException) -> None:
        """One more."""
        self.count += 1
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        trace = " > ".join(f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames)
        now = time.monotonic()
        if now >= self._quiet_until.get(trace, 0.0):
            self._quiet_until[trace] = now + _QUIET
            self._log.error("probe-error", subject=subject, message=repr(error), trace=trace)
