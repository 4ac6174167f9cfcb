"""For programs with this folder in PYTHONPATH: the clock is set by what a file says, in seconds.

CLOCK_REALTIME is one for the whole machine, in no namespace; tests must not set it.
"""

from __future__ import annotations

import os
import time

_real, _file = time.time, os.environ.get("TULA_TEST_CLOCK", "")


def _set() -> float:
    try:
        with open(_file) as handle:  # noqa: PTH123 - nothing imported that costs each start
            return _real() + float(handle.read() or 0)
    except OSError:
        return _real()


if _file:
    time.time = _set
