"""The counts that outlive the elements which counted them."""

from __future__ import annotations

from collections.abc import Mapping

from tula.dataplane.nft.recover import MapCounts, counts_by_id
from tula.dataplane.nft.ruleset import Kind, MapName, Ruleset
from tula.dataplane.nft.schema import readable_kind
from tula.dataplane.nft.transaction import DeleteElements, Transaction
from tula.engine.store import PastCounts
from tula.model.config import Config
from tula.model.count import Count
from tula.model.ids import Ids, split_id


def past_counts(
    past: PastCounts, config: Config, known: Ids, want: Ruleset, counts: MapCounts
) -> dict[str, Mapping[str, Count]]:
    """The counts to remember: those that were, and those of elements that leave now.

    A service's total must not fall when one of its backends goes, or one IP version of it.
    """
    staying = {
        (kind, mark) for name in want.maps if (kind := counting(name)) for mark in want.maps[name]
    }
    leaving = {
        name: {mark: n for mark, n in elements.items() if (counting(name), mark) not in staying}
        for name, elements in counts.items()
    }
    listed = {service.name for service in config.services}
    kept = {service: counted for service, counted in past.items() if service in listed}
    return add_counts(kept, config, known, leaving)


def add_counts(
    past: PastCounts, config: Config, known: Ids, leaving: MapCounts
) -> dict[str, Mapping[str, Count]]:
    """``past`` with the counts of elements that leave, by the numbers in ``known``."""
    names = {number: name for name, number in known.services.items()}
    keys = {number: key for key, number in known.backends.items()}
    listed = {service.name for service in config.services}
    kept = dict(past)
    for name, elements in leaving.items():
        for mark, count in counts_by_id({name: elements}).items():
            service, backend = split_id(mark)
            service_name, key = names.get(service, ""), keys.get(backend, "")
            if service_name in listed and key:
                totals = dict(kept.get(service_name, {}))
                totals[key] = totals.get(key, Count()) + count
                kept[service_name] = totals
    return kept


def counting(name: str) -> Kind | None:
    """The kind of a map by its name, if it is one that counts."""
    kind = readable_kind(name)
    return kind if kind is not None and kind.counts else None


def leaving_marks(transaction: Transaction) -> dict[MapName, list[int]]:
    """The counting elements that a transaction takes away, by their map."""
    return {
        step.name: [key for key in step.keys if isinstance(key, int)]
        for step in transaction
        if isinstance(step, DeleteElements) and step.name.kind.counts
    }
