"""The numbers that stand for services and backends in the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BACKEND_BITS = 16
BACKENDS = 1 << BACKEND_BITS


def backend_id(service: int, backend: int) -> int:
    """The packet mark of one backend of one service: the service's number above the backend's."""
    return service << BACKEND_BITS | backend


def split_id(mark: int) -> tuple[int, int]:
    """The (service number, backend number) of a mark."""
    return mark >> BACKEND_BITS, mark & (BACKENDS - 1)


@dataclass(frozen=True, slots=True)
class Ids:
    """Numbers in use, by name; the cursors make a freed number the last to be used again.

    ``backends`` goes by ``Backend.key``, so that one backend has one number in all services and
    services with equal backends share a Maglev table. ``tables`` goes by the service's name.
    """

    services: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    next_service: int = 0
    next_backend: int = 0
