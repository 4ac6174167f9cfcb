"""What was counted in elements that go, by whose it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tula.dataplane.nft.ids import Ids, split_id
from tula.dataplane.nft.recover import MapCounts
from tula.dataplane.nft.ruleset import Key, Kind, MapName, Ruleset
from tula.dataplane.nft.schema import readable_kind
from tula.dataplane.nft.transaction import DeleteElements, Transaction
from tula.model.stats import BackendKey


def leaving_counts(want: Ruleset, counts: MapCounts) -> MapCounts:
    """The counts of elements that ``want`` has in no map of their kind.

    A service's total must not fall when one of its backends goes, or one IP version of it.
    """
    staying = {
        (kind, mark) for name in want.maps if (kind := _counting(name)) for mark in want.maps[name]
    }
    return {
        name: {mark: n for mark, n in elements.items() if (_counting(name), mark) not in staying}
        for name, elements in counts.items()
    }


def leaving_marks(transaction: Transaction) -> Mapping[MapName, list[int]]:
    """The counting elements that a transaction takes away, by their map."""
    return {
        step.name: [key for key in step.keys if isinstance(key, int)]
        for step in transaction
        if isinstance(step, DeleteElements) and step.name.kind.counts
    }


def names_of(marks: Iterable[Key], ids: Ids) -> dict[int, BackendKey]:
    """Whose the marks are; those that nobody has are left out."""
    services = {number: name for name, number in ids.services.items()}
    backends = {number: key for key, number in ids.backends.items()}
    found: dict[int, BackendKey] = {}
    for mark in marks:
        if isinstance(mark, int):
            service, backend = split_id(mark)
            if service in services and backend in backends:
                found[mark] = (services[service], backends[backend])
    return found


def _counting(name: str) -> Kind | None:
    """The kind of a map by its name, if it is one that counts."""
    kind = readable_kind(name)
    return kind if kind is not None and kind.counts else None
