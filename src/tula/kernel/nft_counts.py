"""How many connections the table holds: each of them counted, or a sample of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tula.dataplane.nft.ruleset import TABLE, MapName
from tula.dataplane.nft.sample import one_in
from tula.kernel.nft_reader import NftReader
from tula.kernel.nft_table import own_maps

EXACT = 50_000
"""Connections up to which each is counted, if a sample does not say that there are more: that takes
0.1 s."""


@dataclass(frozen=True, slots=True)
class HeldConnections:
    """Connections by backend id; an estimate but for those that are ``empty``."""

    counts: dict[int, int] = field(default_factory=dict)
    estimated: bool = False
    empty: frozenset[int] = frozenset()


def read_connections(
    reader: NftReader, deadline: float, empty: frozenset[int] = frozenset()
) -> HeldConnections | None:
    """See ``Nftables.connections``; ``deadline`` is of time.monotonic."""
    if not reader.has_table(TABLE):
        return HeldConnections()
    maps = own_maps(reader)
    flows = [text for text, name in maps.items() if name.kind.flows]
    sample = _read_sample(reader, deadline, maps)
    if sample is None:
        counts = _count(reader, flows, deadline)
        return None if counts is None else HeldConnections(counts)
    if sum(sample.values()) <= EXACT:
        counts = _count(reader, flows, deadline)
        if counts is not None:
            return HeldConnections(counts)
    doubtful = frozenset(mark for mark in empty if not sample.get(mark))
    found: set[int] = set()
    for text in flows:
        if time.monotonic() > deadline:
            break  # a walk that was given up keeps the socket from another one
        found |= reader.marks_found(TABLE, text, doubtful - found, deadline)
    return HeldConnections(sample, True, doubtful - found)


def _read_sample(
    reader: NftReader, deadline: float, maps: dict[str, MapName]
) -> dict[int, int] | None:
    """The estimate by the sample; None where there is none."""
    sizes = [name.size for name in maps.values() if name.kind.flows]
    samples = [text for text, name in maps.items() if name.kind.samples]
    counts = _count(reader, samples, deadline) if samples and sizes else None
    factor = one_in(max(sizes, default=0))
    return None if counts is None else {mark: n * factor for mark, n in counts.items()}


def _count(reader: NftReader, maps: list[str], deadline: float) -> dict[int, int] | None:
    total: Counter[int] = Counter()
    for text in maps:
        counted = reader.marks_held(TABLE, text, deadline)
        if counted is None:
            return None
        total.update(counted)
    return dict(total)
