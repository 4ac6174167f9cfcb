"""How persistence stands: the settings of services, how full the tables of clients are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tula.model.client_scopes import ClientScope, client_scopes
from tula.model.config import Config, VirtualService
from tula.model.stats import TableUse


@dataclass(frozen=True, slots=True)
class ScopeUse:
    """One scope. ``clients`` is how many it holds, None where the kernel does not tell; ``size``
    how many it can, of each IP version; ``full``: those versions (4, 6) that hold no more."""

    scope: ClientScope
    clients: int | None
    size: int
    full: tuple[int, ...] = ()


def scope_uses(config: Config, tables: Iterable[TableUse]) -> list[ScopeUse]:
    """Every scope's."""
    held: dict[str, list[TableUse]] = {}
    for table in tables:
        held.setdefault(table.scope, []).append(table)
    return [
        _use(scope, held.get(scope.label, []), config) for scope in client_scopes(config.services)
    ]


def _use(scope: ClientScope, tables: list[TableUse], config: Config) -> ScopeUse:
    known = [table.entries for table in tables if table.entries is not None]
    clients = sum(known) if len(known) == len(tables) and tables else None
    full = (
        table.version
        for table in tables
        if table.entries is not None and table.entries >= table.size
    )
    return ScopeUse(scope, clients, config.connections.size, tuple(sorted(full)))


class Persistent:
    """The persistence of each service of a configuration."""

    def __init__(self, config: Config, tables: Iterable[TableUse]) -> None:
        self._uses = scope_uses(config, tables)
        self._of = {name: use for use in self._uses for name in use.scope.services}

    def describe(self, service: VirtualService) -> dict[str, Any] | None:
        """As ``tula status --json`` has it; None for a service that remembers nobody."""
        use, settings = self._of.get(service.name), service.persistence
        if use is None or settings is None:
            return None
        return {
            "timeout": settings.timeout,
            "prefix": settings.prefix,
            "prefix6": settings.prefix6,
            "scope": settings.scope,
            "drain": str(settings.drain),
            "services": list(use.scope.services),
            "clients": use.clients,
            "size": use.size,
        }

    def problems(self) -> Iterator[str]:
        """Tables that are full, a line each."""
        for use in self._uses:
            for version in use.full:
                yield full_table(use, version)


def full_table(use: ScopeUse, version: int) -> str:
    """What a full table means."""
    return (
        f"persistence of {use.scope.name}: the table of IPv{version} clients is full: new ones go "
        "by hash, and may move; raise connections.size, or shorten persistence.timeout"
    )
