"""Who may connect to a service, and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from tula.model.prefixes import IPNetwork as IPNetwork
from tula.model.prefixes import PrefixList
from tula.model.setting import Integer, Setting


class Refusal(StrEnum):
    """What a client sees that may not connect: nothing at all, or a reset (UDP: an ICMP error)."""

    DROP = "drop"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many new connections (UDP: flows) a service takes; None: any number."""

    new_per_second: Annotated[
        int | None,
        Setting("New connections a second, of all clients together.", Integer(1, 10_000_000)),
    ] = None
    per_client: Annotated[
        int | None,
        Setting("New connections a second of one client's address.", Integer(1, 1_000_000)),
    ] = None


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may connect to one service. What is in ``deny`` may not, whatever ``allow`` says."""

    allow: PrefixList | None = None
    """None: everybody."""
    deny: PrefixList = field(default_factory=PrefixList)
    limits: Limits = field(default_factory=Limits)
    refusal: Refusal = Refusal.DROP
