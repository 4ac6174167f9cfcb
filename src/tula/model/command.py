"""A command line, to be run or to be printed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """Program and arguments, and what it reads from standard input."""

    words: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        """As a shell command, with standard input as a here-configuration."""
        line = shlex.join(self.words)
        return f"{line} <<'EOF'\n{self.text}EOF" if self.text else line


def command(line: str, text: str = "") -> Command:
    """A command from a line; arguments are separated by spaces and contain none."""
    return Command(tuple(line.split()), text)
