"""The maps of persistent clients: which there are, and what rules do with their entries.

A map for each scope and IP version: a client's masked address is the key, a backend's id the value.
Where several services share it, each takes the backend's number out of it and puts its own number
above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tula.dataplane.nft.ids import BACKEND_BITS, BACKENDS, backend_id
from tula.dataplane.nft.packet_fields import VERSIONS, client_key
from tula.dataplane.nft.ruleset import Elements, Key, Kind, MapName
from tula.model.client_scopes import ClientScope
from tula.model.stats import CLIENTS_FULL as CLIENTS_FULL

if TYPE_CHECKING:
    from tula.dataplane.nft.numbered import NumberedService, NumberedState

_CLIENTS = {4: Kind.CLIENTS4, 6: Kind.CLIENTS6}
_LEARNS = {4: Kind.LEARNS_CLIENT4, 6: Kind.LEARNS_CLIENT6}


@dataclass(frozen=True, slots=True)
class ClientMap:
    """Where one service remembers its clients of one IP version. ``timeout`` is in seconds;
    ``own``: the service's number as a mark's upper part, 0 where it shares the map with none."""

    name: MapName
    key: str
    timeout: float
    own: int

    def look_up(self, key: str = "") -> str:
        """Makes the mark the client's backend, as this service's; breaks for an unknown client."""
        found = f"meta mark set {key or self.key} map @{self.name}"
        if not self.own:
            return found
        return f"{found} meta mark set meta mark & {BACKENDS - 1:#x} | {self.own:#x}"

    def update(self, life: float) -> str:
        """Keeps the client for so many seconds from now. An existing entry keeps its backend."""
        return f"update {self._entry(life)}"

    def add(self, life: float) -> str:
        """Remembers the client; an existing entry stays as it is. Breaks when the map is full."""
        return f"add {self._entry(life)}"

    def forget(self) -> str:
        return f"delete @{self.name} {{ {self.key} : meta mark }}"

    def _entry(self, life: float) -> str:
        timeout = max(1, round(life * 1000))
        return f"@{self.name} {{ {self.key} timeout {timeout}ms : meta mark }}"


@dataclass(frozen=True, slots=True)
class ClientMaps:
    """All of them. ``shortest`` is the least timeout of a service, in seconds. ``learns`` lead to
    the chains that learn from other balancers, by IP version; empty where flows are nobody else's
    business."""

    keeping: MapName
    shortest: float
    learns: Mapping[int, MapName]

    def of(self, service: NumberedService, version: int, size: int) -> ClientMap | None:
        """Where a service remembers its clients; None: nowhere."""
        scope = service.persistence
        if scope is None:
            return None
        bits = scope.settings.bits(version)
        return ClientMap(
            clients_map(scope, version, size),
            client_key(version, bits),
            scope.settings.timeout,
            service.number << BACKEND_BITS if len(scope.services) > 1 else 0,
        )

    def keep_match(self) -> str:
        """Matches where the mark is a backend that gets its clients' new flows."""
        return f"meta mark @{self.keeping} "


def clients_map(scope: ClientScope, version: int, size: int) -> MapName:
    """The map of a scope: the same for as long as the scope and the prefix are.

    Its name tells the scope, so that no number must be remembered, and no map is ever taken for
    another's.
    """
    label = f"{scope.label}.{scope.settings.bits(version)}"
    return MapName(_CLIENTS[version], size, label=label)


def plan_client_maps(
    state: NumberedState,
    add_map: Callable[[Kind, Elements], MapName],
    add_filled: Callable[[MapName], object],
) -> ClientMaps | None:
    """The maps, put into the table by the two functions; None where no service remembers clients.

    Without the connection table there is no persistence (config.rules refuses it).
    """
    services = [service for service in state.services if service.persistence is not None]
    if not services or not state.connections.enabled:
        return None
    learns: dict[int, dict[Key, str]] = {}
    for service in services:
        for version in VERSIONS:
            if service.persistence is not None and service.packed_vips(version):
                add_filled(clients_map(service.persistence, version, state.connections.size))
                chain = learning_chain(version, service.name)
                learns.setdefault(version, {}).update((mark, chain) for mark in _marks(service))
    return ClientMaps(
        keeping=add_map(Kind.KEEPS_CLIENTS, dict.fromkeys(keeping_marks(services))),
        shortest=min(s.persistence.settings.timeout for s in services if s.persistence is not None),
        learns={
            version: add_map(_LEARNS[version], elements) for version, elements in learns.items()
        }
        if state.shared_with is not None
        else {},
    )


def learning_chain(version: int, service: str) -> str:
    """The chain that learns a service's clients from other balancers."""
    return f"learn_client{version}.{service}"


def keeping_marks(services: list[NumberedService]) -> Iterator[int]:
    """The ids of backends that get their persistent clients' new flows."""
    return (
        backend_id(service.number, backend.number)
        for service in services
        for backend in service.backends
        if service.persistence is not None and backend.present and backend.keeps_clients
    )


def _marks(service: NumberedService) -> Iterator[int]:
    return (backend_id(service.number, backend.number) for backend in service.backends)
