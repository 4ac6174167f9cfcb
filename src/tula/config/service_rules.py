"""Rules within one service and its health checks, after merging its defaults.

An error of a key that defaults give is reported at defaults: the same for every service that
inherits it, and so, problems being kept once each, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.config.answer_rules import answer_problems
from tula.config.backend_rules import pool_problems
from tula.config.errors import choices
from tula.config.models import COMMON, KINDS, REQUIRED, GivenCheck, GivenHealth
from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.config import Backend, Forwarding, IPAddress, PortRange
from tula.model.monitor import HealthMonitor
from tula.model.problem import Path, Problem

REQUIRED_KEYS = {
    "vip": "give the virtual address, such as vip: 198.51.100.10",
    "ports": "give ports such as [80, 443], or any",
    "forwarding": "give forwarding: l2, here or in defaults",
    "backends": "give a map such as {cache-1: {address: 10.0.0.11}}, {} for none",
}
"""The keys that each service needs, its own or from defaults, and what to give."""
_TYPE = "give type: tcp, http, https, udp, dns, icmp, script or agent"
_PORT = "needs via: direct; through the VIP a check goes to the service's own port"


def service_problems(service: Merged, positions: Positions) -> Iterator[Problem]:
    """What is wrong with this service, whatever the others are."""
    for key, fix in REQUIRED_KEYS.items():
        if key not in service.given:
            yield Problem(service.path, f"needs {key!r}; {fix}", on_key=True)
    given, value = service.given, service.value
    if service.has("vip"):
        yield from _duplicate(given["vip"], value.vips, positions)
    if service.has("protocol"):
        yield from _duplicate(given["protocol"], value.protocols, positions)
    if service.has("ports"):
        yield from _duplicate_ports(given["ports"], value.ports, positions)
    if service.has("backends"):
        yield from _backends(given["backends"], value.backends, positions)
    yield from _health_problems(service, positions)
    yield from _families(service, positions)
    yield from pool_problems(service, positions)


def _duplicate(path: Path, values: Sequence[object], positions: Positions) -> Iterator[Problem]:
    seen: dict[object, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            message = f"{value} is given twice; keep one"
            yield Problem(positions.item(path, index, len(values)), message)
        seen.setdefault(value, index)


def _duplicate_ports(
    path: Path, ports: tuple[PortRange, ...], positions: Positions
) -> Iterator[Problem]:
    order = sorted(range(len(ports)), key=lambda index: (ports[index], index))
    widest: int | None = None  # of those seen, the one that reaches furthest
    for index in order:
        port = ports[index]
        if widest is not None and port.first <= ports[widest].last:
            later, sooner = max(index, widest), min(index, widest)
            both = PortRange(port.first, min(port.last, ports[widest].last))
            message = f"{_ports(both)} given twice, already in {ports[sooner]}; keep one"
            if ports[sooner] == ports[later]:
                message = f"{_ports(both)} given twice; keep one"
            yield Problem(positions.item(path, later, len(ports)), message)
        if widest is None or port.last > ports[widest].last:
            widest = index


def _ports(ports: PortRange) -> str:
    return f"port {ports} is" if ports.first == ports.last else f"ports {ports} are"


def _backends(path: Path, backends: tuple[Backend, ...], positions: Positions) -> Iterator[Problem]:
    owners: dict[IPAddress, str] = {}
    itself = ""
    for backend in backends:
        where = (*path, backend.name, "address")
        if backend.is_self:
            if itself:
                message = f"self is already the address of backend {itself!r}"
                yield Problem(where, f"{message}; list each backend once")
            itself = itself or backend.name
        count = len(backend.addresses)
        versions: dict[int, IPAddress] = {}
        for index, address in enumerate(backend.addresses):
            place = positions.item(where, index, count)
            other = owners.setdefault(address, backend.name)
            if other != backend.name:
                message = f"{address} is already the address of backend {other!r}"
                yield Problem(place, f"{message}; list each backend once")
            first = versions.get(address.version)
            if first == address:
                yield Problem(place, f"{address} is given twice; keep one")
            elif first is not None:
                message = f"a second IPv{address.version} address beside {first}"
                yield Problem(place, f"{message}; give one of each family")
            versions.setdefault(address.version, address)


def _families(service: Merged, positions: Positions) -> Iterator[Problem]:
    if not service.has("vip", "forwarding", "backends"):
        return
    value = service.value
    vips = {vip.version: vip for vip in reversed(value.vips)}
    for backend in value.backends:
        if value.forwarding_of(backend) is Forwarding.L3:
            continue
        path = (*service.given["backends"], backend.name, "address")
        if backend.is_self or positions.cut(path, len(backend.addresses)):
            continue  # the invalid address may be of the family that is missing
        have = {address.version for address in backend.addresses}
        for version in sorted(vips.keys() - have):
            message = (
                f"service {service.name!r} has the IPv{version} VIP {vips[version]}, and l2 needs "
                f"an IPv{version} address of each backend; add one to {backend.addresses[0]}"
            )
            yield Problem(path, message)


def _health_problems(service: Merged, positions: Positions) -> Iterator[Problem]:
    """What is wrong with the checks of this service, those of its defaults among them."""
    given = service.given
    if "health" in given and "checks" in given:
        message = "conflicts with health; give health or checks, not both"
        yield Problem(given["checks"], message, on_key=True)
    if service.has("health") and service.health is not None:
        yield from _health(service, service.health, given["health"], positions)
    if service.has("checks"):
        for index, check in enumerate(service.checks):
            path = positions.item(given["checks"], index, len(service.checks))
            yield from _own_problems(check, path)
            yield from _monitor_problems(service, check, (path,), positions)


def _health(
    service: Merged, health: GivenHealth, path: Path, positions: Positions
) -> Iterator[Problem]:
    if not positions.has((*path, "checks")):
        if not positions.has((*path, "type")):
            yield Problem(path, f"needs 'type'; {_TYPE}; or checks for several", on_key=True)
        yield from _own_problems(health.checks[0], path)
        yield from _monitor_problems(service, health.checks[0], (path,), positions)
        return
    checks = health.checks if health.several else ()
    for index, check in enumerate(checks):
        where = positions.item((*path, "checks"), index, len(checks))
        if check.monitor is None and not any(positions.has((*at, "type")) for at in (where, path)):
            yield Problem(where, f"needs 'type'; {_TYPE}, here or in health", on_key=True)
        yield from _own_problems(check, where)
        yield from _monitor_problems(service, check, (where, path), positions)
    monitors = [check.monitor for check in checks if check.monitor is not None]
    all_read = len(monitors) == len(checks) and not positions.cut((*path, "checks"), len(checks))
    if checks and all_read:
        yield from _unused(health, {monitor.type for monitor in monitors}, path)


def _own_problems(check: GivenCheck, path: Path) -> Iterator[Problem]:
    """Keys given in the check itself that its kind does not take."""
    if check.monitor is None:
        return
    kind = check.monitor.type
    for key in sorted(check.keys):
        kinds = [kind for kind, keys in KINDS.items() if key in keys]
        if kinds and key not in KINDS[kind]:
            message = f"a check of type {kind} has no {key!r}; it is for {choices(kinds)}"
            yield Problem((*path, key), message, on_key=True)


def _unused(health: GivenHealth, kinds: set[str], path: Path) -> Iterator[Problem]:
    """Keys beside ``checks`` that none of them takes."""
    taken = COMMON.union(*(KINDS[kind] for kind in kinds))
    special = {key for keys in KINDS.values() for key in keys}
    for key in sorted((health.keys & special) - taken):
        fitting = choices([kind for kind, keys in KINDS.items() if key in keys])
        message = f"none of the checks takes {key!r}; it is for {fitting}"
        yield Problem((*path, key), message, on_key=True)


def _monitor_problems(
    service: Merged, check: GivenCheck, where: tuple[Path, ...], positions: Positions
) -> Iterator[Problem]:
    """What a check lacks, and keys that contradict each other or the service.

    ``where``: the check's path, and that of the map that its other keys may stand in.
    """
    monitor = check.monitor
    if monitor is None:
        return

    def place(key: str) -> Path | None:
        # Asked of the text: a key that is given and invalid has its own problem.
        return next(((*at, key) for at in where if positions.has((*at, key))), None)

    required = REQUIRED.get(monitor.type)
    if required is not None and place(required.key) is None:
        example = required.setting.example
        message = f"a check of type {monitor.type} needs {required.key!r}; give one {example}"
        yield Problem(where[0], message, on_key=True)
    fast, interval = monitor.fast_interval, monitor.interval
    if (path := place("fast_interval")) is not None and fast is not None and fast > interval:
        message = f"{fast:g}s is more than the interval of {interval:g}s"
        yield Problem(path, f"{message}; give that or less")
    yield from answer_problems(check, place, where[0])
    if "port" in KINDS[monitor.type] and not monitor.auxiliary and service.has("ports"):
        yield from _port_problems(service, monitor, place("port"), where[0])


def _port_problems(
    service: Merged, monitor: HealthMonitor, port: Path | None, path: Path
) -> Iterator[Problem]:
    ports = service.value.ports
    # What is wrong for this service only is said of it, wherever the check stands.
    inherited = path[0] == "defaults" and service.given["ports"][0] != "defaults"
    if port is None and not ports:
        fix = "give the port that backends serve on, such as port: 80, or use type: icmp"
        check = "check inherited from defaults" if inherited else "check"
        message = f"the {monitor.type} {check} needs 'port', since ports is any; {fix}"
        yield Problem(service.path if inherited else path, message, on_key=True)
    elif port is None or not monitor.port or not monitor.by_vip or not ports:
        return
    elif not any(monitor.port in own for own in ports):
        check = f"the check inherited from defaults, to port {monitor.port},"
        message = f"{check} {_PORT}" if inherited else _PORT
        yield Problem(service.path if inherited else port, message, on_key=True)
