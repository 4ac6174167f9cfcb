"""Rules of client persistence: in one service, and between those that remember clients together."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.client_scopes import client_scopes
from tula.model.config import Affinity, Config, Protocol, UdpScheduling
from tula.model.persistence import SCOPE_SERVICE, SCOPE_VIP
from tula.model.problem import Path, Problem
from tula.model.wording import describe_duration

_EQUAL = ("timeout", "prefix", "prefix6", "drain")
"""What the services of one scope must give alike: they fill the same table."""


def persistence_problems(
    config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    """What cannot be remembered, or not together."""
    found = [service for service in services if service.has("persistence")]
    for service in found:
        yield from _alone(service, config)
    yield from _together(found, positions)


def persistence_warnings(services: list[Merged]) -> Iterator[Problem]:
    """A name that only one service gives is hardly meant."""
    values = [service.value for service in services]
    names = {service.name: service for service in services}
    for scope in client_scopes(values):
        settings = scope.settings
        if len(scope.services) == 1 and settings.scope not in (SCOPE_SERVICE, SCOPE_VIP):
            message = f"no other service gives scope {settings.scope!r}, so it remembers alone"
            service = names[scope.services[0]]
            yield Problem(service.given["persistence"], f"{message}; is it spelt alike?")


def _alone(service: Merged, config: Config) -> Iterator[Problem]:
    """What contradicts it in its own service."""
    value = service.value
    if value.persistence is None:
        return
    path = service.given["persistence"]
    if service.has("affinity") and value.affinity is Affinity.CLIENT:
        message = "cannot be combined with affinity: client, which chooses without remembering"
        yield Problem(path, f"{message}; leave out one of them", on_key=True)
    if not config.connections.enabled:
        message = "needs the connection table, which is disabled"
        fix = "set connections: {enabled: true}, or use affinity: client"
        yield Problem(path, f"{message}; {fix}", on_key=True)
    by_packet = service.has("udp_scheduling") and value.udp_scheduling is UdpScheduling.PACKET
    if by_packet and service.sound("protocol") and Protocol.UDP in value.protocols:
        message = "cannot be combined with udp_scheduling: packet, which chooses for every packet"
        yield Problem(path, f"{message}; leave out one of them", on_key=True)


def _together(found: list[Merged], positions: Positions) -> Iterator[Problem]:
    """The differences of services that share a scope from the first one of it, one line each."""
    by_name = {service.name: service for service in found if service.sound("vip")}
    for scope in client_scopes([service.value for service in by_name.values()]):
        first, *others = (by_name[name] for name in scope.services)
        for other in others:
            yield from _settings_differ(first, other, positions)
            yield from _backends_differ(first, other)


def _settings_differ(first: Merged, other: Merged, positions: Positions) -> Iterator[Problem]:
    path = other.place("persistence")
    for key in _EQUAL:
        have, want = getattr(other.value.persistence, key), getattr(first.value.persistence, key)
        if have != want:
            where: Path = (*path, key) if positions.has((*path, key)) else path
            shown = _text(have) if where is not path else f"{key} {_text(have)}"
            message = f"{shown} here, and {_text(want)} in service {first.name!r} of the same scope"
            yield Problem(where, f"{message}; give both the same")


def _backends_differ(first: Merged, other: Merged) -> Iterator[Problem]:
    if not (first.has("backends") and other.has("backends")):
        return
    have, want = ({b.key for b in service.value.backends} for service in (other, first))
    lacking, more = sorted(want - have), sorted(have - want)
    if lacking:
        message = f"lacks backend {lacking[0]}, which service {first.name!r} of the same scope has"
    elif more:
        message = f"has backend {more[0]}, which service {first.name!r} of the same scope lacks"
    else:
        return
    fix = "give both the same backends, or another scope"
    yield Problem(other.place("backends"), f"{message}; {fix}", on_key=True)


def _text(value: object) -> str:
    return describe_duration(value) if isinstance(value, float) else str(value)
