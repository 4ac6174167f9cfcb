"""Services with their defaults merged in, and where each of their keys is given."""

from __future__ import annotations

from dataclasses import dataclass

from tula.config.models import DocumentModel, ServiceModel
from tula.config.tree import MapNode, Value
from tula.model.problem import Path

_MONITORS = frozenset({"health", "checks"})


@dataclass(frozen=True, slots=True)
class Merged:
    """One service as it will be.

    ``keys`` holds the values. ``given`` tells where each key stands in the document, in the
    service or in defaults. ``faulty`` are the keys given in a form that could not be read: their
    values in ``keys`` mean nothing, and no rule may build on them.
    """

    name: str
    keys: ServiceModel
    given: dict[str, Path]
    faulty: frozenset[str]

    @property
    def path(self) -> Path:
        """The path of the service itself."""
        return ("services", self.name)

    def has(self, *keys: str) -> bool:
        """Whether these keys are all given and read."""
        return all(key in self.given and key not in self.faulty for key in keys)

    def sound(self, *keys: str) -> bool:
        """Whether the values of these keys hold: given and read, or left to their default."""
        return self.faulty.isdisjoint(keys)

    def place(self, key: str) -> Path:
        """Where the key stands in this service, or the service when defaults give it.

        For faults between services, which the defaults alone would not have.
        """
        path = self.given.get(key, ())
        return path if path[:1] == ("services",) else self.path


def merge(root: Value, model: DocumentModel) -> list[Merged]:
    """The document's services, in its order, with ``defaults`` for the keys they do not give."""
    raw_services = _map(root, "services")
    raw_defaults = _keys(_map(root, "defaults"))
    merged = []
    for name, service in model.services.items():
        raw = _keys(raw_services.get(name))
        inherited = raw_defaults - raw
        if raw & _MONITORS:
            # One way to give checks replaces the other.
            inherited -= _MONITORS
        given: dict[str, Path] = {key: ("services", name, key) for key in raw}
        given.update({key: ("defaults", key) for key in inherited})
        values = {key: getattr(service, key) for key in raw & service.model_fields_set}
        read = model.defaults.model_fields_set & inherited
        values.update({key: getattr(model.defaults, key) for key in read})
        keys = ServiceModel.model_construct(**values)
        merged.append(Merged(name, keys, given, frozenset(given.keys() - values.keys())))
    return merged


def _map(root: Value, key: str) -> MapNode:
    value = root.get(key) if isinstance(root, MapNode) else None
    return value if isinstance(value, MapNode) else MapNode()


def _keys(value: Value) -> frozenset[str]:
    known = ServiceModel.model_fields.keys()
    return frozenset(value) & known if isinstance(value, MapNode) else frozenset()
