"""What a check says of a backend beside whether it passes: a weight, and whether it is to drain."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HEAVIEST = 65535
"""The largest weight, and the largest percentage, that an answer may give."""


class Admin(StrEnum):
    """What a backend asks of its balancers; HAProxy's administrative state."""

    READY = "ready"
    DRAIN = "drain"
    """no new flows; those that it has stay"""
    MAINT = "maint"
    """no flows at all"""


@dataclass(frozen=True, slots=True)
class GivenWeight:
    """A weight, or a percentage of the configured one; 0 to ``HEAVIEST`` either way."""

    value: int
    percent: bool = False

    def of(self, configured: int) -> int:
        """The weight. More than 0 % of a weight is at least 1: only 0 drains."""
        if not self.percent:
            return self.value
        least = min(1, self.value, configured)
        return min(HEAVIEST, max(least, configured * self.value // 100))

    def __str__(self) -> str:
        return f"{self.value}%" if self.percent else str(self.value)


@dataclass(frozen=True, slots=True)
class Words:
    """What one answer says; what it does not mention is None. ``cause`` tells why ``admin``."""

    weight: GivenWeight | None = None
    admin: Admin | None = None
    up: bool | None = None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Advice:
    """What one check of a backend has come to say.

    ``check`` is its position in the service's checks, ``who`` how a line begins that quotes it.
    ``up`` is an agent's alone: None until it said either. ``evidence`` is one line that tells why
    it is not.
    """

    check: int
    who: str = "its check"
    weight: GivenWeight | None = None
    admin: Admin = Admin.READY
    cause: str = ""
    up: bool | None = None
    evidence: str = ""

    @property
    def plain(self) -> bool:
        """Whether it changes nothing."""
        return self.weight is None and self.admin is Admin.READY and self.up is None
