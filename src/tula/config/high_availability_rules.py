"""Rules of several balancers as one system: ``high_availability``, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count

from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.announce import ENGINES, announced_by
from tula.model.config import Config, IPAddress, Scheduler
from tula.model.desired import Announce
from tula.model.high_availability import Bgp, SharedFlows, Vrrp
from tula.model.problem import Path, Problem
from tula.model.wording import describe_duration as _time

_KEY: Path = ("high_availability",)
_INTERVALS = (0.01, 40.95)
"""VRRPv3 has 12 bits for hundredths of a second (RFC 5798, 5.2.7)."""
_SURE_INTERVAL = 0.1
_DETECTION = (0.05, 60.0)
"""BFD in a process of its own is not faster, and BGP's own hold time is hardly slower."""
_SURE_DETECTION = 0.2
_RESERVED_AS = {23456: "RFC 6793", 65535: "RFC 7300", 4294967295: "RFC 7300"}
_PORT = 4790
_ANYWHERE = "0.0.0.0:8420"
_BFD_PORTS = frozenset({3784, 3785, 4784})
_BY_HASH = (Scheduler.MAGLEV, Scheduler.SOURCE_HASH)


def high_availability_problems(
    config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    """What contradicts itself, or cannot work on any balancer."""
    settings = config.high_availability
    if settings.vrrp is not None:
        yield from _interval(settings.vrrp)
    if settings.bgp is not None:
        yield from _bgp(settings.bgp, config, services, positions)
    yield from _ways(config, services, positions)
    if not settings.enabled:
        return
    yield from _balancers(config, services, positions)
    yield from _port(config)


def high_availability_warnings(
    config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    """What is allowed, and hardly meant."""
    settings = config.high_availability
    if not settings.enabled:
        if positions.has(_KEY):
            message = "there is neither vrrp nor bgp, so nothing of this has an effect"
            yield Problem(_KEY, message, on_key=True)
        yield from _announce_while(services, enabled=False)
        return
    if len(config.load_balancers) == 1:
        message = "there is no other balancer, so nobody takes over; list them all"
        yield Problem(("load_balancers",), message, on_key=True)
    if settings.vrrp is not None and settings.vrrp.interval < _SURE_INTERVAL:
        message = (
            f"{_time(settings.vrrp.interval)} is short: a busy balancer is late by more, and is "
            f"taken for dead; give {_time(_SURE_INTERVAL)} or more"
        )
        yield Problem((*_KEY, "vrrp", "interval"), message)
    if settings.bgp is not None and 0 < settings.bgp.bfd < _SURE_DETECTION:
        message = (
            f"{_time(settings.bgp.bfd)} is short: a busy machine is late by more, and is taken for "
            f"dead; give {_time(_SURE_DETECTION)} or more"
        )
        yield Problem((*_KEY, "bgp", "bfd"), message)
    yield from _heard(config)
    if settings.flows is not SharedFlows.NONE and config.connections.enabled:
        yield from _large_clones(config)
    yield from _forgotten_flows(config, services, positions)
    yield from _announce_while(services, enabled=True)


def _interval(vrrp: Vrrp) -> Iterator[Problem]:
    low, high = _INTERVALS
    hundredths = vrrp.interval * 100
    if not low <= vrrp.interval <= high or abs(hundredths - round(hundredths)) > 1e-6:
        message = (
            f"{_time(vrrp.interval)} is no interval of VRRP, which counts hundredths of a second"
        )
        fix = f"give {_time(low)} to {_time(high)} in steps of {_time(low)}"
        yield Problem((*_KEY, "vrrp", "interval"), f"{message}; {fix}")


def _bgp(
    bgp: Bgp, config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    path: Path = (*_KEY, "bgp")
    low, high = _DETECTION
    if bgp.bfd and not low <= bgp.bfd <= high:
        message = f"{_time(bgp.bfd)} is out of range; give {_time(low)} to {_time(high)}, or 0"
        yield Problem((*path, "bfd"), f"{message} for no BFD")
    yield from _reserved(bgp.number, (*path, "as"))
    written = positions.keys((*path, "routers"))
    if written == []:
        message = "needs at least one router, such as {10.0.0.1: 65000}"
        yield Problem((*path, "routers"), message)
    balancers = {address: name for name, address in config.load_balancers}
    owners = _owners(services)
    numbers = dict(bgp.routers)
    seen: dict[IPAddress, str] = {}
    for text in written or ():
        router, where = _read(text), (*path, "routers", text)
        if router is None or router not in numbers:
            continue  # it has a problem of its own
        message = ""
        if router in seen:
            message = f"given twice, first as {seen[router]}; keep one"
        elif router in balancers:
            message = f"{router} is balancer {balancers[router]!r}; give the router's address"
        elif router in owners:
            message = (
                f"{router} is a VIP of service {owners[router]!r}; give the router's own address"
            )
        if message:
            yield Problem(where, message, on_key=True)
        seen.setdefault(router, text)
        yield from _reserved(numbers[router], where)


def _read(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _reserved(number: int, path: Path) -> Iterator[Problem]:
    if number in _RESERVED_AS:
        message = f"AS {number} is reserved ({_RESERVED_AS[number]}) and no router takes it"
        yield Problem(path, f"{message}; private ones are 64512 to 65534")


def _ways(config: Config, services: list[Merged], positions: Positions) -> Iterator[Problem]:
    """Services that are announced by an engine that is not there, or in two ways."""
    settings = config.high_availability
    engines = {"vrrp": settings.vrrp, "bgp": settings.bgp}
    examples = {"vrrp": "{id: 84}", "bgp": "{as: 65001, routers: {10.0.0.1: 65000}}"}
    # What could not be read has a problem of its own.
    there = {engine for engine in engines if positions.has((*_KEY, engine))}
    chosen: dict[IPAddress, tuple[Announce, str]] = {}
    for service in services:
        announce = service.value.announce
        if not service.sound("announce"):
            continue
        if isinstance(announce, str) and announce in ENGINES and announce not in there:
            example = f"high_availability: {{{announce}: {examples[announce]}}}"
            yield Problem(service.given["announce"], f"{announce} needs {example}")
        elif isinstance(announce, str) and announce not in ENGINES and there == {"bgp"}:
            message = (
                f"bgp puts no VIP on an interface, and on {announce} all balancers would answer "
                "for it at once; give true, or set high_availability: {vrrp: {id: 84}} too"
            )
            yield Problem(service.given["announce"], message)
        if not settings.enabled or not service.has("vip"):
            continue
        way = announced_by(config, service.value)
        if way is Announce.EXTERNAL:
            continue
        for vip in service.value.vips:
            other, name = chosen.setdefault(vip, (way, service.name))
            if other is not way:
                message = f"{vip} is announced by {way} here, and by {other} for service {name!r}"
                yield Problem(service.place("announce"), f"{message}; give both the same")
                break


def _balancers(config: Config, services: list[Merged], positions: Positions) -> Iterator[Problem]:
    if not config.load_balancers:
        key: Path = ("load_balancers",)
        if positions.keys(key) == [] or not positions.has(key):
            example = "load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3}"
            message = f"needs 'load_balancers', this machine and the others; give {example}"
            yield Problem(_KEY, message, on_key=True)
        return
    owners = _owners(services)
    first, address = config.load_balancers[0]
    for name, each in config.load_balancers:
        path: Path = ("load_balancers", name)
        if each.version != address.version:
            message = (
                f"{each} is IPv{each.version}, and {first!r} has IPv{address.version}: with "
                "high_availability all must be of one family; give one such address of each"
            )
            yield Problem(path, message)
        if each in owners:
            message = f"{each} is a VIP of service {owners[each]!r}, which moves"
            yield Problem(path, f"{message}; give the machine's own address")


def _port(config: Config) -> Iterator[Problem]:
    settings, tunnels = config.high_availability, config.tunnels
    taken = {tunnels.vxlan_port: "that of tunnels.vxlan_port", tunnels.gue_port: "that of GUE"}
    if settings.bgp is not None:
        taken |= dict.fromkeys(_BFD_PORTS, "BFD's")
    if settings.port in taken:
        free = next(port for port in count(_PORT) if port not in taken)
        message = f"{settings.port} is {taken[settings.port]} already; give another, such as {free}"
        yield Problem((*_KEY, "port"), message)


def _heard(config: Config) -> Iterator[Problem]:
    """Whether the balancers can ask each other how they are. Each may listen on its own address:
    ``api`` is not compared."""
    listen = config.api.listen
    wild = {each.address.version for each in listen if each.address.is_unspecified}
    own = {each.address for each in listen}
    if any(each.version in wild or each in own for _, each in config.load_balancers):
        return
    anywhere = "[::]:8420" if any(a.version == 6 for _, a in config.load_balancers) else _ANYWHERE
    fix = f'give api: {{listen: "{anywhere}"}}'
    if listen:
        message = "the others ask how this balancer is by its address in load_balancers"
        yield Problem(("api", "listen"), f"{message}, and hear nothing; {fix}")
    else:
        message = "balancers cannot see that others have another configuration, or are gone"
        yield Problem(_KEY, f"{message}; {fix}", on_key=True)


def _large_clones(config: Config) -> Iterator[Problem]:
    """What the kernel does not fragment on the way: a VXLAN over IPv6."""
    for name, address in config.load_balancers:
        if address.version == 6:
            message = (
                "between IPv6 addresses no packet of more than 1430 bytes tells the other "
                "balancers of its flow (MTU 1500)"
            )
            fix = "give IPv4 addresses if the balancers have some"
            yield Problem(("load_balancers", name), f"{message}; {fix}")
            return


def _forgotten_flows(
    config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    settings = config.high_availability
    flows: Path = (*_KEY, "flows")
    told = positions.has(flows) and settings.flows is not SharedFlows.NONE
    if told and not config.connections.enabled:
        message = "this has no effect: it needs the connection table, which is disabled"
        yield Problem(flows, f"{message}; give none, or set connections: {{enabled: true}}")
    if settings.flows is SharedFlows.ALL:
        return
    for service in services:
        if service.value.scheduler not in _BY_HASH and "scheduler" in service.given:
            message = (
                f"connections of {service.value.scheduler} break when another balancer takes "
                "over, which does not know them; set high_availability: {flows: all}, or use "
                "maglev or source-hash"
            )
            yield Problem(service.given["scheduler"], message)


def _announce_while(services: list[Merged], *, enabled: bool) -> Iterator[Problem]:
    for service in services:
        health = service.health
        if health is None or "announce_while" not in health.keys:
            continue
        path = (*service.given["health"], "announce_while")
        needed, backends = health.policy.announce_while, len(service.value.backends)
        if not enabled:
            yield Problem(path, "this has no effect without high_availability")
        elif needed > backends:
            message = (
                f"service {service.name!r} has fewer backends ({backends}), so it never counts"
            )
            yield Problem(path, f"{message} as served; give {backends} or less")


def _owners(services: list[Merged]) -> dict[IPAddress, str]:
    found: dict[IPAddress, str] = {}
    for service in services:
        for vip in service.value.vips if service.has("vip") else ():
            found.setdefault(vip, service.name)
    return found
