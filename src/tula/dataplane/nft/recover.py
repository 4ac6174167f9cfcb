"""What the table itself tells of ids and counts, when nothing else remembers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from tula.dataplane.nft.ruleset import Count, Key, MapName, Ruleset
from tula.model.ids import Ids, split_id

MapCounts = Mapping[str, Mapping[Key, Count]]


def recover_ids(ruleset: Ruleset | None) -> Ids:
    """The numbers of services (by the elements' comments) and of backends (by address)."""
    services: dict[str, int] = {}
    addresses: dict[int, str] = {}
    maps = ruleset.maps if ruleset else {}
    # Names sort via4 before via6: a backend goes by its IPv4 address if it has one.
    for name in sorted(maps):
        parsed = MapName.parse(name)
        if parsed is None or not parsed.kind.counts:
            continue
        for mark, value in maps[name].items():
            if isinstance(mark, int) and isinstance(value, tuple):
                address, owner = value
                service, backend = split_id(mark)
                services[owner] = service
                addresses.setdefault(backend, str(ip_address(address)))
    backends = {address: number for number, address in addresses.items()}
    return Ids(services=services, backends=backends)


def counts_by_id(counts: MapCounts) -> dict[int, Count]:
    """What each backend id counted, over both IP versions."""
    totals: dict[int, Count] = {}
    for elements in counts.values():
        for mark, count in elements.items():
            if isinstance(mark, int):
                totals[mark] = totals.get(mark, Count()) + count
    return totals
