"""A command of the machine, to be run or to be read."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """Its words, and what it reads from standard input."""

    words: tuple[str, ...]
    text: str = ""

    def __str__(self) -> str:
        """For a shell."""
        line = shlex.join(self.words)
        return f"{line} <<'EOF'\n{self.text}EOF" if self.text else line


def command(line: str, text: str = "") -> Command:
    """Of a line whose words have no spaces in them."""
    return Command(tuple(line.split()), text)
