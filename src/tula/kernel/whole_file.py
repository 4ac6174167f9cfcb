"""Files that are replaced as a whole: a crash leaves the old one or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_aside(final: Path, text: bytes, mode: int = 0o644) -> Callable[[], None]:
    """Brings the text to the disk under another name; the result renames it.

    Makes the directory. Both raise OSError.
    """
    aside = final.parent / f".{final.name}.new"
    final.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with aside.open("wb") as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())

    def rename() -> None:
        aside.replace(final)
        directory = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    return rename


def write_whole(final: Path, text: bytes) -> None:
    """Replaces the file. Raises OSError."""
    write_aside(final, text)()
