"""Priorities of lines for systemd's journal, as sd-daemon(3) has them: ``<4>`` before a warning.

The journal takes each line of a unit's standard error as an entry of its own, with the unit's
default priority unless the line says another. So each line of a text gets its prefix.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
_OF_LEVEL = {"critical": 2, "error": ERROR, "warning": WARNING, "info": INFO, "debug": DEBUG}
_WARNS = ("warning:", "WARNING:")


def is_journal(file: int = 2, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this descriptor is a stream to the journal.

    ``JOURNAL_STREAM`` is inherited: by its device and inode a program knows whether its output
    still goes there (systemd.exec(5)).
    """
    try:
        found = os.fstat(file)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def prefixed(text: str, priority: int) -> str:
    """The text with its priority before each of its lines."""
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def prefix_level(_logger: object, level: str, event: MutableMapping[str, Any] | str) -> str:
    """A structlog processor that comes after the renderer."""
    return prefixed(str(event), _OF_LEVEL.get(level, INFO))


def mark_errors() -> None:
    """Has what else is written to standard error (messages, tracebacks) be an error there."""
    if is_journal() and not isinstance(sys.stderr, _Marked):
        sys.stderr = _Marked(sys.stderr)


class _Marked:
    """Standard error, with a priority before each line that has none of its own."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begins = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            if self._begins:
                self._file.write(_prefix_of(line))
            self._file.write(line)
            self._begins = line.endswith("\n")
        return len(text)


def _prefix_of(line: str) -> str:
    if line[:1] == "<" and line[1:2].isdigit() and line[2:3] == ">":
        return ""
    return f"<{WARNING if line.startswith(_WARNS) else ERROR}>"
