"""Services with their defaults merged in, and where each of their keys is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tula.config.fields import Strict, given, settings_of, value_of
from tula.config.models import SERVICE_KEYS, GivenCheck, GivenHealth
from tula.config.tree import MapNode, Value
from tula.model.config import Protocol, VirtualService
from tula.model.problem import Path

_MONITORS = frozenset({"health", "checks"})
_DECLARED = settings_of(VirtualService)
_FIELDS = {key: name for name, key in SERVICE_KEYS.items()}


@dataclass(frozen=True, slots=True)
class Merged:
    """One service as it will be.

    ``value`` is what the model has of it, its checks apart. ``given`` tells where each key stands,
    in the service or in defaults. ``unreadable`` are the keys whose values could not be read: no
    rule may look at those.
    """

    name: str
    value: VirtualService
    health: GivenHealth | None
    checks: tuple[GivenCheck, ...]
    given: dict[str, Path]
    unreadable: frozenset[str]

    @property
    def path(self) -> Path:
        """The path of the service itself."""
        return ("services", self.name)

    def has(self, *keys: str) -> bool:
        """Whether these keys are all given and read."""
        return all(key in self.given and key not in self.unreadable for key in keys)

    def sound(self, *keys: str) -> bool:
        """Whether the values of these keys hold: given and read, or left to their default."""
        return self.unreadable.isdisjoint(keys)

    def place(self, key: str) -> Path:
        """Where the key stands in this service, or the service when defaults give it.

        For errors between services, which the defaults alone would not have.
        """
        path = self.given.get(key, ())
        return path if path[:1] == ("services",) else self.path


def merge(root: Value, services: Mapping[str, Strict], defaults: Strict) -> list[Merged]:
    """The services, in their order, with ``defaults`` for the keys they do not give."""
    raw_services = _map(root, "services")
    raw_defaults = _keys(_map(root, "defaults"))
    default_values = given(defaults)
    merged = []
    for name, service in services.items():
        raw = _keys(raw_services.get(name))
        inherited = raw_defaults - raw
        if raw & _MONITORS:
            # One of the two that give checks replaces the other.
            inherited -= _MONITORS
        places: dict[str, Path] = {key: ("services", name, key) for key in raw}
        places.update({key: ("defaults", key) for key in inherited})
        values = given(service)
        for key in inherited:
            field = _FIELDS[key]
            if field in default_values:
                values[field] = default_values[field]
        unreadable = frozenset(key for key in places if _FIELDS[key] not in values)
        merged.append(_merged(name, values, places, unreadable))
    return merged


def _merged(
    name: str, values: dict[str, Any], places: dict[str, Path], unreadable: frozenset[str]
) -> Merged:
    health: GivenHealth | None = values.pop("health", None)
    checks = tuple(values.pop("checks", ()))
    values = {"name": name, "backends": (), **values}
    return Merged(
        name, value_of(VirtualService, _DECLARED, values), health, checks, places, unreadable
    )


def finished(service: Merged) -> VirtualService:
    """The service of a configuration without problems, its checks included."""
    value = service.value
    found = service.health.checks if service.health is not None else service.checks
    changes: dict[str, Any] = {}
    if found:
        changes["health"] = tuple(check.monitor for check in found)
    if service.health is not None:
        changes["policy"] = service.health.policy
    ports = tuple(sorted(value.ports))
    if ports != value.ports:
        changes["ports"] = ports
    # In one order, so that [udp, tcp] is the same service as [tcp, udp].
    protocols = tuple(protocol for protocol in Protocol if protocol in value.protocols)
    if protocols != value.protocols:
        changes["protocols"] = protocols
    return replace(value, **changes) if changes else value


def _map(root: Value, key: str) -> MapNode:
    value = root.get(key) if isinstance(root, MapNode) else None
    return value if isinstance(value, MapNode) else MapNode()


def _keys(value: Value) -> frozenset[str]:
    return frozenset(value) & _FIELDS.keys() if isinstance(value, MapNode) else frozenset()
