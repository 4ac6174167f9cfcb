"""The maps that schedulers choose backends from: Maglev tables, and (weighted) round robin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedState, NumberedTable
from tula.dataplane.nft.ruleset import Elements, Kind, MapName

_Tables = Mapping[int, NumberedTable]


class SchedulerMaps:
    """Their names by number, and which of them several services share."""

    def __init__(self, state: NumberedState) -> None:
        self._state = state
        self.shared: set[MapName] = set()
        self.owners: dict[MapName, int] = {}
        """The service's number, of maps that only one service uses; 0 for others."""
        users = ((service.table, service.number) for service in state.services)
        self.slots = self._names(Kind.SLOTS, state.tables, users)
        users = ((service.wrr, service.number) for service in state.services)
        self.wrr = self._names(Kind.WRR, state.wrr, users)

    def _names(
        self, kind: Kind, tables: _Tables, users: Iterable[tuple[int | None, int]]
    ) -> dict[int, MapName]:
        """``users`` are pairs of a table's number and a service's."""
        services: dict[int | None, list[int]] = {}
        for number, service in users:
            services.setdefault(number, []).append(service)
        names: dict[int, MapName] = {}
        for number, table in tables.items():
            name = names[number] = MapName(kind, len(table), number)
            of = services.get(number, [])
            if len(of) > 1:
                self.shared.add(name)
            self.owners[name] = of[0] if len(of) == 1 else 0
        return names

    def all(self) -> Iterator[tuple[MapName, NumberedTable]]:
        """Every map's name, and its table."""
        yield from ((name, self._state.tables[number]) for number, name in self.slots.items())
        yield from ((name, self._state.wrr[number]) for number, name in self.wrr.items())

    def maps(self) -> dict[str, Elements]:
        """The maps by name."""
        return {str(name): self.elements(name, table) for name, table in self.all()}

    def elements(self, name: MapName, table: NumberedTable) -> Elements:
        """A map's elements. They are many: equal numbers are the same object."""
        owner = self.owners[name]
        marks = [backend_id(owner, number) for number in table.numbers]
        slots = table.table.slots
        return dict(zip(_numbers(len(slots)), map(marks.__getitem__, slots), strict=True))


@cache
def _numbers(count: int) -> tuple[int, ...]:
    """0, 1, ...: the same objects for all maps of that size."""
    return tuple(range(count))
