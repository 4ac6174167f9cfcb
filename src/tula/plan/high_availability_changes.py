"""What changes between balancers, in the user's terms: engines, routers, and who announces what."""

from __future__ import annotations

from collections.abc import Iterator

from tula.model.announce import announced_by
from tula.model.config import Config
from tula.model.desired import Announce
from tula.model.high_availability import Bgp, HighAvailability, SharedFlows, Vrrp
from tula.model.wording import counted, describe_duration, named

_WAYS = {
    Announce.STATIC: "this machine alone",
    Announce.EXTERNAL: "nobody here",
    Announce.VRRP: "VRRP",
    Announce.BGP: "BGP",
}
_NAME = "high_availability"


def describe_high_availability_changes(before: Config, after: Config) -> Iterator[str]:
    """``+ high_availability.vrrp: id 84, adverts every 100ms``, and whose VIPs that moves."""
    old, new = before.high_availability, after.high_availability
    yield from _vrrp(old.vrrp, new.vrrp)
    yield from _bgp(old.bgp, new.bgp)
    yield from _flows(old, new)
    yield from _announced(before, after)


def _vrrp(old: Vrrp | None, new: Vrrp | None) -> Iterator[str]:
    name = f"{_NAME}.vrrp"
    if new is None:
        if old is not None:
            yield f"- {name}: keepalived holds no VIPs here any more"
        return
    adverts = f"adverts every {describe_duration(new.interval)}"
    if old is None:
        where = f" on {new.interface}" if new.interface else ""
        yield f"+ {name}: id {new.id}, {adverts}{where}, MAC address: {new.mac}"
        return
    if old.id != new.id:
        yield f"~ {name}.id: {old.id} → {new.id}"
    if old.interface != new.interface:
        by_address = "that of load_balancers"
        yield f"~ {name}.interface: {old.interface or by_address} → {new.interface or by_address}"
    if old.interval != new.interval:
        have, want = describe_duration(old.interval), describe_duration(new.interval)
        yield f"~ {name}.interval: {have} → {want}"
    if old.mac != new.mac:
        yield f"~ {name}.mac: {old.mac} → {new.mac}"


def _bgp(old: Bgp | None, new: Bgp | None) -> Iterator[str]:
    name = f"{_NAME}.bgp"
    if new is None:
        if old is not None:
            yield f"- {name}: no router hears of VIPs from here any more"
        return
    if old is None:
        count = counted(len(new.routers), "router")
        yield f"+ {name}: AS {new.number}, {count}, BFD: {_detection(new)}"
        return
    if old.number != new.number:
        yield f"~ {name}.as: {old.number} → {new.number}"
    had, has = dict(old.routers), dict(new.routers)
    for router, number in has.items():
        if router not in had:
            yield f"+ {name} router {router}: AS {number}"
        elif had[router] != number:
            yield f"~ {name} router {router}: AS {had[router]} → {number}"
    yield from (f"- {name} router {router}" for router in had if router not in has)
    if old.bfd != new.bfd:
        yield f"~ {name}.bfd: {_detection(old)} → {_detection(new)}"


def _detection(bgp: Bgp) -> str:
    return describe_duration(bgp.bfd) if bgp.bfd else "off"


def _flows(old: HighAvailability, new: HighAvailability) -> Iterator[str]:
    have, want = _told(old), _told(new)
    if have != want:
        yield f"~ {_NAME}.flows: {have} → {want}"
    if old.port != new.port:
        yield f"~ {_NAME}.port: {old.port} → {new.port}"


def _told(settings: HighAvailability) -> SharedFlows:
    """Which flows the others are told, as it is: none without an engine."""
    return settings.flows if settings.enabled else SharedFlows.NONE


def _announced(before: Config, after: Config) -> Iterator[str]:
    """The services that are announced in another way than they were, by that."""
    old = {service.name: announced_by(before, service) for service in before.services}
    moved: dict[tuple[Announce, Announce], list[str]] = {}
    for service in after.services:
        way = announced_by(after, service)
        if old.get(service.name, way) is not way:
            moved.setdefault((old[service.name], way), []).append(service.name)
    for (have, want), names in moved.items():
        noun = "service" if len(names) == 1 else "services"
        yield f"~ {noun} {named(names)}: announced by {_WAYS[have]} → {_WAYS[want]}"
