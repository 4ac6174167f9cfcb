"""What the table itself tells of ids and counts, when nothing else remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from tula.dataplane.nft.ids import Ids, split_id
from tula.dataplane.nft.ruleset import Key, MapName, Ruleset
from tula.model.desired import DesiredService, DesiredState
from tula.model.stats import Count

MapCounts = Mapping[str, Mapping[Key, Count]]


def recover_ids(ruleset: Ruleset | None) -> Ids:
    """The numbers of services (by the elements' comments) and of backends (by address)."""
    services: dict[str, int] = {}
    addresses: dict[int, str] = {}
    maps = ruleset.maps if ruleset else {}
    # Names sort via4 before via6: a backend goes by its IPv4 address if it has one.
    for map_name in sorted(maps):
        parsed = MapName.parse(map_name)
        if parsed is None or not parsed.kind.counts:
            continue
        for mark, value in maps[map_name].items():
            if isinstance(mark, int) and isinstance(value, tuple):
                address, owner = value
                service, backend = split_id(mark)
                name, _, key = owner.partition(" ")
                services[name] = service
                addresses.setdefault(backend, key or str(ip_address(address)))
    backends = {address: number for number, address in addresses.items()}
    return Ids(services=services, backends=backends)


def renamed_services(state: DesiredState, known: Ids, ruleset: Ruleset | None) -> dict[str, str]:
    """New names to old ones: of services that take what one took that is gone from the document."""
    owners: dict[Key, str] = {}
    for name, elements in ruleset.maps.items() if ruleset else ():
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind.dispatches:
            owners |= {key: str(chain).partition(".")[2] for key, chain in elements.items()}
    listed = {service.name for service in state.services}
    found: dict[str, str] = {}
    for service in state.services:
        if service.name not in known.services:
            before = (owners.get(key, "") for key in _dispatch_keys(service))
            old = next((name for name in before if name and name not in listed), "")
            if old:
                found[service.name] = old
    return found


def _dispatch_keys(service: DesiredService) -> Iterator[Key]:
    """What leads to the service: each VIP with each protocol and ports, or with any port."""
    for vip in service.vips:
        for protocol in service.protocols:
            for ports in service.ports:
                yield vip.packed, protocol.number, ports.first, ports.last
            if not service.ports:
                yield vip.packed, protocol.number


def counts_by_id(counts: MapCounts) -> dict[int, Count]:
    """What each backend id counted, over both IP versions.

    Where a map and the one that goes on from it are both there, since somebody was killed before
    the old one was removed, the greater count holds the other.
    """
    most: dict[tuple[str, int], Count] = {}
    for name, elements in counts.items():
        kind = name.partition("_")[0]
        for mark, count in elements.items():
            if isinstance(mark, int):
                known = most.get((kind, mark), Count())
                most[kind, mark] = max(known, count, key=lambda each: each.packets)
    totals: dict[int, Count] = {}
    for (_, mark), count in most.items():
        totals[mark] = totals.get(mark, Count()) + count
    return totals
