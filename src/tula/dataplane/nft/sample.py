"""A sample of the flows, small enough to be counted however large the tables are.

For every answer to a dump the kernel walks the map from its start (nft_rhash_walk), so that to
count a table takes time by the square of its entries: 262,144 take 3 s, a million take a minute.
The sample holds one in so many flows, by a hash of client and port: entries are added, refreshed
and removed with those of the flow tables, where packets do that: on the slow path, about once a
minute a flow. There is none where tables are small enough, or where nobody counts often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tula.dataplane.nft.packet_fields import CLIENT, CLIENT_PORT, FLOW_KEY
from tula.dataplane.nft.ruleset import Kind, MapName

if TYPE_CHECKING:
    from tula.dataplane.nft.numbered import NumberedState

SAMPLES = {4: Kind.SAMPLE4, 6: Kind.SAMPLE6}
SMALL = 65_536
"""Entries of a table that is counted as a whole, in 0.2 s."""
COUNTABLE = 262_144
"""Entries of a table that can be counted as a whole now and then, in 3 s: while a backend drains,
or for a status."""
_EXPECTED = 32_768
"""Entries that the sample of a full table has, within a few in a hundred."""
_ROOM = 4
"""Times as many fit: TCP and UDP share the sample, and a hash can be played with."""
_SEED = 0x73616D70
"""Not that of a scheduler: the sample would be of some backends more than of others."""


def one_in(size: int) -> int:
    """How many flows one of the sample stands for, by the size of a flow table: a power of 2."""
    return 1 << max(0, (size - 1).bit_length() - _EXPECTED.bit_length() + 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """The sample of one IP version, and what rules do with its entries."""

    version: int
    name: MapName
    one_in: int

    def _match(self) -> str:
        key = f"{CLIENT[self.version]} . {CLIENT_PORT}"
        return f"jhash {key} mod {self.one_in} seed {_SEED:#x} 0 "

    def keep(self, life: str) -> str:
        """Keeps a flow's entry for that long from now, and makes one where there is none. Breaks
        for flows that are not of the sample."""
        entry = f"{{ {FLOW_KEY[self.version]} timeout {life} : meta mark }}"
        return f"{self._match()}update @{self.name} {entry}"

    def begin(self, life: str) -> str:
        """The same for a new flow, whose key another flow may have had until just now."""
        entry = f"{{ {FLOW_KEY[self.version]} timeout {life} : meta mark }}"
        return f"{self._match()}{self.forget()} add @{self.name} {entry}"

    def forget(self) -> str:
        """Does not break for flows that it does not hold."""
        return f"delete @{self.name} {{ {FLOW_KEY[self.version]} : meta mark }}"


def plan_sample(
    state: NumberedState, version: int, add: Callable[[Kind, int], MapName]
) -> Sample | None:
    """The sample, its map put into the table by ``add``; None where nobody needs one."""
    connections = state.connections
    largest = SMALL if state.counts_often else COUNTABLE
    if not connections.enabled or connections.size <= largest:
        return None
    return Sample(version, add(SAMPLES[version], _EXPECTED * _ROOM), one_in(connections.size))
