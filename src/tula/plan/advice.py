"""What follows from what several checks say of one backend. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tula.model.advice import Admin, Advice

_STRICTER = {Admin.READY: 0, Admin.DRAIN: 1, Admin.MAINT: 2}
_READY_WORDS = {Admin.DRAIN: "drains: ", Admin.MAINT: ""}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backend is to be used by its checks, and why in one line.

    ``weight`` is None where none gives one. The operator's weight counts in its place.
    """

    admin: Admin = Admin.READY
    weight: int | None = None
    reason: str = ""

    @property
    def drains(self) -> bool:
        """Whether it is to keep its flows, and get no new ones."""
        return self.admin is Admin.DRAIN or (self.admin is Admin.READY and self.weight == 0)

    @property
    def serves(self) -> bool:
        """Whether it is to get new flows."""
        return self.admin is Admin.READY and self.weight != 0


READY = Standing()


def standing(advice: Iterable[Advice], configured: int, overridden: int | None = None) -> Standing:
    """The strictest of them: maint before drain before the lowest weight.

    ``configured`` is the weight that percentages are of; 0 stays 0, whatever they say.
    """
    said = [each for each in advice if each.admin is not Admin.READY]
    if said:
        worst = max(said, key=lambda each: _STRICTER[each.admin])
        prefix = _READY_WORDS[worst.admin]
        return Standing(worst.admin, None, f"{prefix}{worst.who} {worst.cause}")
    given = [(each.weight.of(configured), each) for each in advice if each.weight is not None]
    if not given or not configured:
        return READY
    weight, lowest = min(given, key=lambda pair: pair[0])
    reason = f"{lowest.who} says {lowest.weight}"
    if overridden is not None:
        return Standing(reason=f"{reason}, but the operator {overridden}")
    return Standing(weight=weight, reason=reason)
