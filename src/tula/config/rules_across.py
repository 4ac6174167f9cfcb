"""Rules between services: overlapping ports, and VIPs that are backends' addresses."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.merged import Merged
from tula.config.tree import Positions
from tula.model.config import IPAddress, PortRange, Protocol
from tula.model.problem import Path, Problem

_Key = tuple[IPAddress, Protocol]
_Claim = tuple[PortRange, int, int]
"""Ports, and the service and the item of its ``ports`` that claim them, as numbers."""


def across_problems(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    """What is wrong between the services of one document, in time near to linear."""
    sharing = [s for s in services if s.has("vip", "ports") and s.sound("protocol")]
    yield from _overlaps(sharing, positions)
    yield from _vips_of_backends(services, positions)


def _overlaps(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    holders: dict[_Key, list[int]] = {}
    for number, service in enumerate(services):
        # Sets, since an address given twice has its own problem.
        for vip in dict.fromkeys(service.keys.vip):
            for protocol in dict.fromkeys(service.keys.protocol):
                holders.setdefault((vip, protocol), []).append(number)
    swept: set[tuple[int, ...]] = set()
    reported: set[tuple[int, int]] = set()  # one line a pair, however much they share
    for key, numbers in holders.items():
        group = tuple(numbers)
        # Services that share many VIPs are compared on the first.
        if len(group) > 1 and group not in swept:
            swept.add(group)
            yield from _shared(key, group, services, positions, reported)


def _shared(
    key: _Key,
    group: tuple[int, ...],
    services: list[Merged],
    positions: Positions,
    reported: set[tuple[int, int]],
) -> Iterator[Problem]:
    """The overlaps of services on one VIP and protocol."""
    place = f"{key[0]} {key[1]}"
    first, *others = [n for n in group if not services[n].keys.ports] or [-1]
    for number in others:
        if (first, number) not in reported:
            reported.add((first, number))
            message = f"service {services[first].name!r} has any port of {place} already"
            path = services[number].place("ports")
            yield Problem(path, f"{message}; name the ports of one of them")
    held = [(p, n, i) for n in group for i, p in enumerate(services[n].keys.ports)]
    for ports, sooner, later, item in _sweep(held):
        if (sooner, later) in reported:
            continue
        reported.add((sooner, later))
        noun = "port" if ports.first == ports.last else "ports"
        message = f"service {services[sooner].name!r} has {noun} {ports} of {place} already"
        count = len(services[later].keys.ports)
        path = positions.item(services[later].place("ports"), item, count)
        yield Problem(path, f"{message}; a port belongs to one service")


def _sweep(held: list[_Claim]) -> Iterator[tuple[PortRange, int, int, int]]:
    """Overlaps of ports of different services: the ports, both services, the later one's item."""
    held.sort()
    widest: _Claim | None = None  # of those seen, the one that reaches furthest
    for claim in held:
        if widest and claim[0].first <= widest[0].last and claim[1] != widest[1]:
            both = PortRange(claim[0].first, min(claim[0].last, widest[0].last))
            later = max(claim, widest, key=lambda each: each[1])
            yield both, min(claim[1], widest[1]), later[1], later[2]
        if widest is None or claim[0].last > widest[0].last:
            widest = claim


def _vips_of_backends(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    owners: dict[IPAddress, str] = {}
    for service in services:
        for vip in service.keys.vip if service.has("vip") else ():
            owners.setdefault(vip, service.name)
    for service in services:
        if not service.has("backends"):
            continue
        for name, backend in service.keys.backends.items():
            path: Path = (*service.given["backends"], name, "address")
            for index, address in enumerate(backend.address):
                if address in owners:
                    item = positions.item(path, index, len(backend.address))
                    message = (
                        f"{address} is the VIP of service {owners[address]!r}; "
                        "give the backend's own address"
                    )
                    yield Problem(item, message)
