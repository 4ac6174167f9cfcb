"""Notices that the configuration file has changed."""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from pathlib import Path

from tula.config.errors import BrokenError
from tula.config.source import read_bytes

_EVERY = 0.5
"""Seconds. Asked again and again rather than told: that works for every file system, and for the
links that Kubernetes swaps."""

_Stamp = tuple[int, ...] | None


class FileWatch:
    """One file, by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def read(self) -> bytes | str:
        """Its content without a byte order mark, or why that cannot be had."""
        try:
            return read_bytes(self.path).removeprefix(BOM_UTF8)
        except BrokenError as error:
            return error.message

    async def changes(self) -> AsyncIterator[None]:
        """Each time that the file has changed, and then held still for a moment.

        So that what an editor has half written is not taken for a configuration.
        """
        told = seen = self._stamp()
        while True:
            await asyncio.sleep(_EVERY)
            before, seen = seen, self._stamp()
            if seen == before and seen != told:
                told = seen
                yield

    def _stamp(self) -> _Stamp:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
