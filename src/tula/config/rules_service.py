"""Rules within one service, after merging its defaults.

A fault of a key that defaults give is reported at defaults: the same for every service that
inherits it, and so, problems being kept once each, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.config.merged import Merged
from tula.config.models import BackendModel
from tula.config.rules_health import health_problems
from tula.config.tree import Positions
from tula.model.config import Forwarding, IPAddress, PortRange
from tula.model.problem import Path, Problem

_NEEDED = {
    "vip": "give the virtual address, such as vip: 198.51.100.10",
    "ports": "give ports such as [80, 443], or any",
    "forwarding": "give forwarding: l2, here or in defaults",
    "backends": "give a map such as {cache-1: {address: 10.0.0.11}}, {} for none",
}


def service_problems(service: Merged, positions: Positions) -> Iterator[Problem]:
    """What is wrong with this service, whatever the others are."""
    for key, mend in _NEEDED.items():
        if key not in service.given:
            yield Problem(service.path, f"needs {key!r}; {mend}", on_key=True)
    given, keys = service.given, service.keys
    if service.has("vip"):
        yield from _doubled(given["vip"], keys.vip, positions)
    if service.has("protocol"):
        yield from _doubled(given["protocol"], keys.protocol, positions)
    if service.has("ports"):
        yield from _doubled_ports(given["ports"], keys.ports, positions)
    if service.has("backends"):
        yield from _backends(given["backends"], keys.backends, positions)
    yield from health_problems(service, positions)
    yield from _families(service, positions)


def _doubled(path: Path, values: Sequence[object], positions: Positions) -> Iterator[Problem]:
    seen: dict[object, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            message = f"{value} is given twice; keep one"
            yield Problem(positions.item(path, index, len(values)), message)
        seen.setdefault(value, index)


def _doubled_ports(path: Path, ports: list[PortRange], positions: Positions) -> Iterator[Problem]:
    order = sorted(range(len(ports)), key=lambda index: (ports[index], index))
    widest: int | None = None  # of those seen, the one that reaches furthest
    for index in order:
        port = ports[index]
        if widest is not None and port.first <= ports[widest].last:
            later, sooner = max(index, widest), min(index, widest)
            both = PortRange(port.first, min(port.last, ports[widest].last))
            message = f"{_ports(both)} given twice, in {ports[sooner]} already; keep one"
            if ports[sooner] == ports[later]:
                message = f"{_ports(both)} given twice; keep one"
            yield Problem(positions.item(path, later, len(ports)), message)
        if widest is None or port.last > ports[widest].last:
            widest = index


def _ports(ports: PortRange) -> str:
    return f"port {ports} is" if ports.first == ports.last else f"ports {ports} are"


def _backends(
    path: Path, backends: dict[str, BackendModel], positions: Positions
) -> Iterator[Problem]:
    owners: dict[IPAddress, str] = {}
    for name, backend in backends.items():
        where = (*path, name, "address")
        count = len(backend.address)
        versions: dict[int, IPAddress] = {}
        for index, address in enumerate(backend.address):
            place = positions.item(where, index, count)
            other = owners.setdefault(address, name)
            if other != name:
                message = f"{address} is the address of backend {other!r} already"
                yield Problem(place, f"{message}; a service has each backend once")
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
    keys = service.keys
    if keys.forwarding is not Forwarding.L2:
        return
    vips = {vip.version: vip for vip in reversed(keys.vip)}
    for name, backend in keys.backends.items():
        path = (*service.given["backends"], name, "address")
        if positions.cut(path, len(backend.address)):
            continue  # the faulty address may be of the family that is missing
        have = {address.version for address in backend.address}
        for version in sorted(vips.keys() - have):
            message = (
                f"service {service.name!r} has the IPv{version} VIP {vips[version]}, and l2 needs "
                f"an IPv{version} address of each backend; add one to {backend.address[0]}"
            )
            yield Problem(path, message)
