"""Takes from this process whatever it does not need, for good."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress

# linux/prctl.h, linux/capability.h
_SET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT = 1, 4, 24, 38, 47
_CLEAR_ALL = 4
_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_FILES = 4096
_NICE = 5
_OOM = 500


class ConfineError(Exception):
    """The kernel did not take a right away, or the daemon has gone meanwhile."""


def confine(parent: int) -> None:
    """No capabilities, none to be had again, less CPU than the daemon, and the end with it.

    ``parent`` is the process id of the daemon. Raises ConfineError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.prctl(_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        raise ConfineError("the daemon has ended")
    _check(libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    libc.prctl(_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    for number in range(_LAST_CAPABILITY + 1):
        # Without CAP_SETPCAP the kernel refuses, and with no_new_privs it does not matter.
        libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(0o077)
    os.nice(_NICE)
    # Where memory is short, the gateway goes and not the daemon.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(str(_OOM))


def _check(result: int, what: str) -> None:
    if result:
        raise ConfineError(f"{what}: {os.strerror(ctypes.get_errno())}")
