"""Ids and counts as the table itself shows them, where nothing else remembers them.

The table may be of an older schema: maps are taken by ``readable_kind``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from tula.dataplane.nft.ids import Ids, split_id
from tula.dataplane.nft.ruleset import Key, Kind, Ruleset
from tula.dataplane.nft.schema import readable_kind
from tula.model.desired import DesiredService, DesiredState
from tula.model.stats import Count

MapCounts = Mapping[str, Mapping[Key, Count]]


def recover_ids(ruleset: Ruleset | None) -> Ids:
    """The numbers of services (by the elements' comments) and of backends (by address)."""
    services: dict[str, int] = {}
    addresses: dict[int, str] = {}
    maps = ruleset.maps if ruleset else {}
    kinds = ((readable_kind(name), name) for name in maps)
    counting = [(kind, name) for kind, name in kinds if kind is not None and kind.counts]
    # NEXTHOP4 sorts before NEXTHOP6: a backend goes by its IPv4 address if it has one.
    for _, map_name in sorted(counting):
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
    """New names to old ones, of services that take over what a removed service had.

    The removed one had the same VIP, protocol and port.
    """
    owners: dict[Key, str] = {}
    for name, elements in ruleset.maps.items() if ruleset else ():
        kind = readable_kind(name)
        if kind is not None and kind.dispatches:
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
    """The keys that dispatch to the service: VIP and protocol, with ports or for any port."""
    for vip in service.vips:
        for protocol in service.protocols:
            for ports in service.ports:
                yield vip.packed, protocol.number, ports.first, ports.last
            if not service.ports:
                yield vip.packed, protocol.number


def counts_by_id(counts: MapCounts) -> dict[int, Count]:
    """What each backend id counted, over both IP versions.

    A map and the one that replaces it are both there when a process was killed before it removed
    the old one. The new one started from the old one's counts, so only the greater is taken.
    """
    most: dict[tuple[Kind | None, int], Count] = {}
    for name, elements in counts.items():
        kind = readable_kind(name)
        for mark, count in elements.items():
            if isinstance(mark, int):
                known = most.get((kind, mark), Count())
                most[kind, mark] = max(known, count, key=lambda each: each.packets)
    totals: dict[int, Count] = {}
    for (_, mark), count in most.items():
        totals[mark] = totals.get(mark, Count()) + count
    return totals
