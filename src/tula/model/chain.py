"""Base chains of nftables that are not Tula's, as far as it takes to know what they drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Match:
    """A packet's field compared with a value. ``field`` is where it is (``network`` or
    ``transport``), its offset and length in bytes; or the name of what nftables knows of it."""

    field: tuple[str, int, int]
    equal: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class ChainRule:
    """A rule: the verdict for what all matches fit. ``vague``: it asks for more than those tell.

    ``verdict`` is drop, accept, jump, goto, return, or empty for none; ``chain`` where it leads.
    """

    matches: tuple[Match, ...] = ()
    vague: bool = False
    verdict: str = ""
    chain: str = ""


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain at a hook; ``others`` are the rules of the table's other chains, by name."""

    family: str
    table: str
    name: str
    hook: str
    devices: tuple[str, ...]
    priority: int
    drops: bool = False
    """Its policy."""
    rules: tuple[ChainRule, ...] = ()
    others: Mapping[str, tuple[ChainRule, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"
