"""Notices that the configuration file has changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from tula.config.errors import BrokenError
from tula.config.parts import read_text, stamp_of

_EVERY = 0.5
"""Seconds. Asked again and again rather than told: that works for every file system, and for the
links that Kubernetes swaps."""


class FileWatch:
    """One file, or a directory of them, by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def read(self) -> bytes | str:
        """Its content without a byte order mark, or why that cannot be had."""
        try:
            return read_text(self.path)
        except BrokenError as error:
            return error.message

    async def changes(self) -> AsyncIterator[None]:
        """Each time that the file has changed, and then held still for a moment.

        So that what an editor has half written is not taken for a configuration.
        """
        told = seen = stamp_of(self.path)
        while True:
            await asyncio.sleep(_EVERY)
            before, seen = seen, stamp_of(self.path)
            if seen == before and seen != told:
                told = seen
                yield
