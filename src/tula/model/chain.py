"""Base chains of other nftables tables, as far as needed to know which packets they drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CT_STATE = "ctstate"
"""In place of a header: connection tracking's state, with a mask in place of the offset."""


@dataclass(frozen=True, slots=True)
class Match:
    """A comparison of a packet's field with a value.

    ``field`` is the header (``network`` or ``transport``) with offset and length in bytes, or the
    name of a meta key with offset 0 and its length, or CT_STATE. An interface's name may be
    compared with the beginning of one.
    """

    field: tuple[str, int, int]
    equal: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class ChainRule:
    """A rule: what happens to packets that meet all matches.

    ``verdict`` is drop, accept, jump, goto, return, vmap (by a map, not known which), or empty for
    none; ``chain`` is the target of a jump or goto. ``partial``: the rule has further conditions
    that ``matches`` cannot express. ``redirects``: it hands packets to another port or machine
    (DNAT, REDIRECT, TPROXY).
    """

    matches: tuple[Match, ...] = ()
    partial: bool = False
    verdict: str = ""
    chain: str = ""
    redirects: bool = False


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
    """Whether its policy is drop."""
    rules: tuple[ChainRule, ...] = ()
    others: Mapping[str, tuple[ChainRule, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"
