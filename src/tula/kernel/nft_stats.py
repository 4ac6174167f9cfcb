"""What the nftables data path counts, by the names of services and backends."""

from __future__ import annotations

from collections.abc import Mapping

from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.recover import MapCounts, counts_by_id
from tula.dataplane.nft.retired import names_of
from tula.dataplane.nft.ruleset import MapName
from tula.dataplane.nft.shared_chains import counted_for
from tula.kernel.nft_table import NewerTableError
from tula.kernel.nftables import Nftables
from tula.model.stats import NO_BACKEND, BackendKey, Count, Stats, TableUse


def read_stats(nftables: Nftables, ids: Ids) -> Stats:
    """What is counted now. Raises KernelError."""
    if not nftables.exists():
        return Stats()
    try:
        backends = count_by_name(nftables.counts(), ids)
    except NewerTableError:  # all else can be told
        backends = {}
    parsed = (
        (MapName.parse(name), entries) for name, entries in sorted(nftables.entries().items())
    )
    tables = tuple(
        TableUse(
            f"{name.kind}.{name.label}" if name.label else str(name.kind),
            entries,
            name.size,
            name.label.rpartition(".")[0],  # behind it stand the bits
            int(name.kind[-1]) if name.label else 0,
        )
        for name, entries in parsed
        if name is not None
        and name.kind.dynamic
        and not (name.kind.hot or name.kind.samples or name.number)
    )
    counters: dict[str, Count] = {}
    no_backend: dict[str, Count] = {}
    refused: dict[tuple[str, str], Count] = {}
    for name, count in nftables.named_counts().items():
        what, service = counted_for(name) or (name, "")
        counters[what] = counters.get(what, Count()) + count
        if what == NO_BACKEND and service:
            no_backend[service] = count
        elif service:
            refused[service, what] = count
    return Stats(backends, counters, tables, no_backend, refused)


def count_by_name(counts: MapCounts, ids: Ids) -> Mapping[BackendKey, Count]:
    """What each backend of each service counted; without those that counted nothing."""
    totals = counts_by_id(counts)
    names = names_of(totals, ids)
    return {
        names[mark]: count
        for mark, count in totals.items()
        if mark in names and (count.packets or count.bytes)
    }
