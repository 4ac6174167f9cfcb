"""The numbers that stand for services and backends in the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BACKEND_BITS = 16
BACKENDS = 1 << BACKEND_BITS

PROBE_MARK = 0x54756C61
"""What a probe's packets carry ("Tula"): that they go to the backend whose id is their priority."""


def backend_id(service: int, backend: int) -> int:
    """The packet mark of one backend of one service: the service's number above the backend's."""
    return service << BACKEND_BITS | backend


def split_id(mark: int) -> tuple[int, int]:
    """The (service number, backend number) of a mark."""
    return mark >> BACKEND_BITS, mark & (BACKENDS - 1)


Left = Mapping[str, tuple[int, float]]
"""What is gone: its number, and when it went (seconds since the epoch)."""


@dataclass(frozen=True, slots=True)
class Ids:
    """Numbers in use, by name; the cursors make a freed number the last to be used again.

    ``backends`` goes by ``Backend.key``, so that one backend has one number in all services and
    services with equal backends share a Maglev table. What left keeps its number as long as a
    flow table may hold it. ``tables`` and ``turns`` (the orders of round robin) go by the service's
    name.
    """

    services: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)
    left_services: Left = field(default_factory=dict)
    left_backends: Left = field(default_factory=dict)
    next_service: int = 0
    next_backend: int = 0

    def knows(self, service: str, backend: str) -> bool:
        """Whether both have numbers."""
        return service in self.services and backend in self.backends

    def mark(self, service: str, backend: str) -> int:
        """The mark of a backend of a service. Raises KeyError."""
        return backend_id(self.services[service], self.backends[backend])

    def dump(self) -> dict[str, Any]:
        """For JSON; what ``recall_ids`` reads."""
        return {
            "services": dict(self.services),
            "backends": dict(self.backends),
            "tables": dict(self.tables),
            "turns": dict(self.turns),
            "left_services": {name: list(entry) for name, entry in self.left_services.items()},
            "left_backends": {name: list(entry) for name, entry in self.left_backends.items()},
            "next_service": self.next_service,
            "next_backend": self.next_backend,
        }


def recall_ids(data: Mapping[str, Any]) -> Ids:
    """The numbers of ``Ids.dump``; none if something is missing or damaged.

    The kernel knows those in use as well, so that a damaged file stops nothing.
    """
    try:
        return Ids(
            services=_numbers(data, "services"),
            backends=_numbers(data, "backends"),
            tables=_numbers(data, "tables"),
            turns=_numbers(data, "turns"),
            left_services=_left(data, "left_services"),
            left_backends=_left(data, "left_backends"),
            next_service=int(data["next_service"]),
            next_backend=int(data["next_backend"]),
        )
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):
        return Ids()


def _numbers(data: Mapping[str, Any], name: str) -> dict[str, int]:
    return {str(key): int(value) for key, value in data.get(name, {}).items()}


def _left(data: Mapping[str, Any], name: str) -> dict[str, tuple[int, float]]:
    entries = data.get(name, {}).items()
    return {str(key): (int(number), float(when)) for key, (number, when) in entries}
