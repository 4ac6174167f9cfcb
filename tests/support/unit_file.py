"""The shipped systemd unit, as far as its tests ask."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parents[2] / "packaging" / "tula.service"


@dataclass(frozen=True, slots=True)
class UnitFile:
    """Sections with keys, each of which may have several values (systemd.syntax(7))."""

    sections: dict[str, dict[str, list[str]]]

    @classmethod
    def parse(cls, text: str) -> UnitFile:
        """Of the syntax, what the shipped unit uses: no lines that go on in the next."""
        sections: dict[str, dict[str, list[str]]] = {}
        keys: dict[str, list[str]] = {}
        for line in map(str.strip, text.splitlines()):
            assert not line.endswith("\\")
            if line.startswith("["):
                keys = sections.setdefault(line.strip("[]"), {})
            elif line and not line.startswith(("#", ";")):
                key, equals, value = line.partition("=")
                assert equals, line
                keys.setdefault(key, []).append(value)
        return cls(sections)

    def words(self, key: str) -> list[str]:
        """All words of a key of [Service]."""
        return [word for value in self.sections["Service"].get(key, []) for word in value.split()]

    def on(self, key: str) -> bool:
        """Whether a switch of [Service] is on."""
        return self.words(key)[-1:] in (["yes"], ["true"], ["strict"])

    @property
    def command(self) -> list[str]:
        """What it starts."""
        (line,) = self.sections["Service"]["ExecStart"]
        return shlex.split(line)
