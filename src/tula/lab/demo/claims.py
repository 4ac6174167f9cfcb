"""What the demo says, checked: it fails when something it claims did not hold."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """A sentence, and whether it was true this time."""

    text: str
    held: bool


class Claims:
    """Collects them in the order of the story."""

    def __init__(self) -> None:
        self.all: list[Claim] = []

    def check(self, text: str, held: bool) -> bool:
        """Note a claim; returns whether it held."""
        self.all.append(Claim(text, held))
        return held

    @property
    def broken(self) -> list[str]:
        """What did not hold."""
        return [claim.text for claim in self.all if not claim.held]
