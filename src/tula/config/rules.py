"""Rules of the configuration as a whole: its own keys, how large it is, and between services."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.services import Merged
from tula.config.tree import Positions, Value
from tula.model.config import Affinity, Config, IPAddress, OnDown, PortRange, Protocol, Scheduler
from tula.model.problem import Path, Problem

MAX_MATCHES = 1_000_000
"""VIPs times protocols times ports and ranges, of all services: each is an entry in the kernel."""

MAX_BACKENDS = 1_000_000
"""Backends of all services, those that defaults give counted for each."""

_STATEFUL = frozenset({Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.LEAST_CONNECTIONS})
"""Only the connection table knows which backend they chose."""
_Key = tuple[IPAddress, Protocol]
_Claim = tuple[PortRange, int, int]
"""Ports, and the service and the item of its ``ports`` that claim them, as numbers."""


def top_problems(root: Value, config: Config, services: list[Merged]) -> Iterator[Problem]:
    """What is missing, duplicate or contradictory at the top."""
    raw = root if isinstance(root, dict) else {}
    if "interfaces" not in raw:
        yield Problem((), "needs 'interfaces'; give those where clients' packets arrive: [eth0]")
    elif raw["interfaces"] == [] and services:
        yield Problem(("interfaces",), "needs at least one interface, such as [eth0]")
    if "services" not in raw:
        yield Problem((), "needs 'services'; give a map of services by name, {} for none")
    yield from _duplicate_interfaces(raw.get("interfaces"))
    yield from _duplicate_balancers(config)
    if config.marks.last < config.marks.first:
        message = (
            f"0x{config.marks.last:x} is below first, 0x{config.marks.first:x}; give a higher one"
        )
        yield Problem(("marks", "last"), message)
    yield from _slots_suffice(config, services)
    if not config.connections.enabled:
        yield from _need_connections(services)
    for service in services:
        if service.has("scheduler", "affinity") and service.value.affinity is Affinity.CLIENT:
            yield from _stateful_by_client(service)


def _stateful_by_client(service: Merged) -> Iterator[Problem]:
    """They choose for each connection: nothing remembers whole clients."""
    if service.value.scheduler in _STATEFUL:
        message = f"affinity: client cannot be combined with scheduler: {service.value.scheduler}"
        yield Problem(service.place("affinity"), f"{message}; use maglev or source-hash")


def _need_connections(services: list[Merged]) -> Iterator[Problem]:
    """What was chosen must be remembered."""
    for service in services:
        value = service.value
        if value.per_packet and value.protocols == (Protocol.UDP,):
            continue  # there is nothing to remember
        if service.has("scheduler") and value.scheduler in _STATEFUL:
            message = f"{value.scheduler} needs the connection table, which is disabled"
            yield Problem(
                service.place("scheduler"),
                f"{message}; use maglev or source-hash, or set connections: {{enabled: true}}",
            )
        if service.sound("on_down") and service.value.on_down is OnDown.KEEP:
            yield Problem(
                service.place("on_down"),
                "on_down: keep needs the connection table, which is disabled; remove it, or set "
                "connections: {enabled: true}",
            )


def _duplicate_interfaces(raw: object) -> Iterator[Problem]:
    # From the tree, since positions in the config's list shift when an invalid item is left out.
    seen: dict[str, int] = {}
    for index, name in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(name, str):
            if name in seen:
                message = f"given twice, first as interfaces[{seen[name]}]; keep one"
                yield Problem(("interfaces", index), message)
            seen.setdefault(name, index)


def _duplicate_balancers(config: Config) -> Iterator[Problem]:
    seen: dict[IPAddress, str] = {}
    for name, address in config.load_balancers:
        if address in seen:
            message = f"{address} is already the address of {seen[address]!r}; give another"
            yield Problem(("load_balancers", name), message)
        seen.setdefault(address, name)


def _slots_suffice(config: Config, services: list[Merged]) -> Iterator[Problem]:
    slots = config.maglev.slots
    if slots is None:
        return
    for service in services:
        count = len(service.value.backends)
        if count > slots:
            message = f"{slots} is less than the {count} backends of service {service.name!r}"
            yield Problem(("maglev", "slots"), f"{message}; give more, 65537 at most")
            return


def size_problems(services: list[Merged]) -> Iterator[Problem]:
    """What is too much of the whole configuration; at most one problem of each kind.

    Defaults multiply: some megabytes can give each of a hundred thousand services ten thousand
    ports. These limits come before every rule that goes through such lists.
    """
    values = [service.value for service in services]
    matches = sum(len(v.vips) * len(v.protocols) * max(1, len(v.ports)) for v in values)
    if matches > MAX_MATCHES:
        message = f"{matches:,} combinations of VIP, protocol and port; at most {MAX_MATCHES:,}"
        yield Problem(("services",), f"{message}: give ranges in place of ports", on_key=True)
    backends = sum(len(v.backends) for v in values)
    if backends > MAX_BACKENDS:
        message = f"{backends:,} backends of all services; at most {MAX_BACKENDS:,}"
        yield Problem(("services",), message, on_key=True)


def across_problems(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    """What is wrong between the services of one configuration, in time near to linear."""
    sharing = [s for s in services if s.has("vip", "ports") and s.sound("protocol")]
    yield from _overlaps(sharing, positions)
    yield from _vips_of_backends(services, positions)


def _overlaps(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    holders: dict[_Key, list[int]] = {}
    for number, service in enumerate(services):
        # Sets, since an address given twice has its own problem.
        for vip in dict.fromkeys(service.value.vips):
            for protocol in dict.fromkeys(service.value.protocols):
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
    first, *others = [n for n in group if not services[n].value.ports] or [-1]
    for number in others:
        if (first, number) not in reported:
            reported.add((first, number))
            message = f"service {services[first].name!r} already has any port of {place}"
            path = services[number].place("ports")
            yield Problem(path, f"{message}; list the ports of one of them")
    held = [(p, n, i) for n in group for i, p in enumerate(services[n].value.ports)]
    for ports, sooner, later, item in _sweep(held):
        if (sooner, later) in reported:
            continue
        reported.add((sooner, later))
        noun = "port" if ports.first == ports.last else "ports"
        message = f"service {services[sooner].name!r} already has {noun} {ports} of {place}"
        count = len(services[later].value.ports)
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
        for vip in service.value.vips if service.has("vip") else ():
            owners.setdefault(vip, service.name)
    for service in services:
        if not service.has("backends"):
            continue
        for backend in service.value.backends:
            path: Path = (*service.given["backends"], backend.name, "address")
            for index, address in enumerate(backend.addresses):
                if address in owners:
                    item = positions.item(path, index, len(backend.addresses))
                    message = (
                        f"{address} is the VIP of service {owners[address]!r}; "
                        "give the backend's own address"
                    )
                    yield Problem(item, message)
