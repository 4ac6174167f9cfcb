"""What an engine says without systemd: a file beside its configuration, in memory like that."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LARGEST = 1 << 20
"""Bytes. keepalived writes a line for each advert that it refuses: whoever sends it such ones must
not fill /run."""
_MODE = 0o640


def open_log(path: Path) -> int:
    """An empty log, for a process that writes to its end, wherever that is by then."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, _MODE)


def bound_log(path: Path) -> None:
    """Begins it again when it has become large; to be called now and then."""
    with suppress(OSError):
        if path.lstat().st_size > _LARGEST:
            file = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.ftruncate(file, 0)
            finally:
                os.close(file)
