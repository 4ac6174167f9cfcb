"""What of the balancer's own traffic is a service's: what its own stack must leave unanswered.

Packets for a service reach the machine's own stack only while Tula's table is away: somebody
flushed the ruleset, and the daemon has not put it back yet. The VIP is an address of this machine,
so the stack would answer with a RST or "port unreachable", and end connections that are alive
(docs/adr/0014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.ruleset import Elements, Kind, MapName, Ruleset

GUARD_TABLE = "tula_guard"
"""A table of its own, in the family inet, that belongs to the daemon's netlink socket."""
GUARDED = "own_stack"
"""Counts what was kept from the machine's own stack."""
LOCAL_MARK = 0x54756C62
"""What a packet carries that is meant for this machine though a service has its port: it passes."""
REFUSED_MARK = 0x54756C63
"""What a refused packet carries that is to be answered, to the table REFUSALS."""

KINDS = (
    *(Kind.SERVICE_PORT4, Kind.SERVICE_RANGE4, Kind.SERVICE_ANY4),
    *(Kind.SERVICE_PORT6, Kind.SERVICE_RANGE6, Kind.SERVICE_ANY6),
)


@dataclass(frozen=True, slots=True)
class Guarded:
    """The keys of the maps that lead to services, by kind; and the indices of the interfaces where
    clients' packets arrive."""

    keys: Mapping[Kind, Elements] = field(default_factory=dict)
    interfaces: frozenset[int] = frozenset()

    def same(self, other: Guarded) -> bool:
        """Whether both are made of the same maps: then nothing need be compared."""
        mine, others = self.keys, other.keys
        return self.interfaces == other.interfaces and all(
            mine.get(kind) is others.get(kind) for kind in KINDS
        )


def guarded(ruleset: Ruleset, interfaces: frozenset[int]) -> Guarded:
    """What the services of a ruleset take."""
    named = ((MapName.parse(name), elements) for name, elements in ruleset.maps.items())
    keys = {name.kind: elements for name, elements in named if name and name.kind in KINDS}
    return Guarded(keys, interfaces)
