"""What Tula's table holds, read by an ``NftReader``. See ``Nftables`` for what each tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

from tula.dataplane.nft.codec import RawElement, decode_element
from tula.dataplane.nft.definition import Definition, definition
from tula.dataplane.nft.ruleset import (
    TABLE,
    Chain,
    Elements,
    Foreign,
    Key,
    Kind,
    MapName,
    Rule,
    Ruleset,
    Value,
)
from tula.dataplane.nft.schema import SCHEMA, readable_map, schema_of
from tula.dataplane.nft.transaction import ADMISSION, REFUSALS
from tula.kernel.nft_prefixes import read_prefixes
from tula.kernel.nft_reader import NftReader
from tula.model.errors import KernelError
from tula.model.stats import Count


class NewerTableError(KernelError):
    """A newer Tula made the table, and this one could only misread it."""

    def __init__(self, schema: int) -> None:
        super().__init__(
            f"the table netdev {TABLE} is of a newer Tula (schema {schema}, this one knows "
            f"{SCHEMA}) and is left as it is; run that Tula, or have this one start afresh "
            "after tula clear, which ends connections"
        )


def require_known_schema(counters: Iterable[str]) -> None:
    """Raises NewerTableError for the counters of a table that is newer."""
    schema = schema_of(counters)
    if schema > SCHEMA:
        raise NewerTableError(schema)


def read_admitted(reader: NftReader) -> tuple[str, ...] | None:
    """See ``Nftables.admitted``."""
    if not reader.has_table(ADMISSION):
        return None
    chains, comments = reader.chains(ADMISSION), reader.rule_comments(ADMISSION)
    ours = {"input": Chain(foreign="hook 1, no device")} == chains
    return tuple(comments.get("input", ())) if ours else ()


def read_refusals(reader: NftReader) -> tuple[str, ...] | None:
    """See ``Nftables.refusals``."""
    if not reader.has_table(REFUSALS):
        return None
    chains, comments = reader.chains(REFUSALS), reader.rule_comments(REFUSALS)
    ours = {"prerouting": Chain(foreign="no device")} == chains
    return tuple(comments.get("prerouting", ())) if ours else ()


def read_ruleset(reader: NftReader) -> Ruleset | None:
    """See ``Nftables.observe``."""
    if not reader.has_table(TABLE):
        return None
    counters, objects = reader.objects(TABLE)
    require_known_schema(counters)
    chains = reader.chains(TABLE)
    comments = reader.rule_comments(TABLE)
    maps: dict[str, Elements] = {}
    counts: dict[str, dict[Key, Count]] = {}
    unreadable: set[str] = set()
    found = reader.maps(TABLE)
    ours = _ours(found)
    for text, name in ours.items():
        read = _elements(reader, text, name.kind)
        maps[text] = read.elements
        if name.kind.counts:
            counts[text] = read.counts
        if not read.whole:
            unreadable.add(text)
    return Ruleset(
        maps=maps,
        chains={
            name: replace(chain, rules=tuple(map(Rule, comments.get(name, ()))))
            for name, chain in chains.items()
        },
        counters=frozenset(counters),
        foreign=Foreign(
            frozenset(found.keys() - ours.keys()),
            frozenset(unreadable),
            frozenset(objects),
            reader.is_dormant(TABLE),
        ),
        counts=counts,
    )


def own_maps(reader: NftReader) -> dict[str, MapName]:
    """The table's maps that are Tula's, by name."""
    return _ours(reader.maps(TABLE))


def _ours(found: Mapping[str, Definition]) -> dict[str, MapName]:
    """The maps with a name and a definition of Tula's, by name."""
    parsed = ((name, readable_map(name)) for name in found)
    return {
        text: name
        for text, name in parsed
        if name is not None and definition(name).fits(found[text])
    }


class _Read(NamedTuple):
    """The elements that can be read, what they counted, and whether those are all."""

    elements: Elements
    counts: dict[Key, Count]
    whole: bool = True


def _elements(reader: NftReader, name: str, kind: Kind) -> _Read:
    if kind.dynamic:
        return _Read({}, {})  # filled by packets; a large one takes the kernel minutes to dump
    if kind.numbered:
        with suppress(ValueError):  # something else among them: one by one
            return _Read(cast(Elements, reader.number_pairs(TABLE, name)), {})
    if kind.prefixes:
        prefixes, whole = read_prefixes(kind, reader.element_answers(TABLE, name))
        return _Read(cast(Elements, prefixes), {}, whole)
    decoded: dict[Key, Value] = {}
    counts: dict[Key, Count] = {}
    whole = True
    for raw in reader.elements(TABLE, name):
        try:
            key, value = decode_element(kind, raw)
        except ValueError:
            whole = False
        else:
            decoded[key] = value
            if kind.counts:
                counts[key] = raw.count or Count()
    return _Read(decoded, counts, whole)


def read_counts(reader: NftReader) -> dict[str, dict[Key, Count]]:
    """See ``Nftables.counts``."""
    found: dict[str, dict[Key, Count]] = {}
    if not reader.has_table(TABLE):
        return found
    require_known_schema(reader.counters(TABLE))
    for text, name in _ours(reader.maps(TABLE)).items():
        if name.kind.counts:
            found[text] = _elements(reader, text, name.kind).counts
    return found


def read_entries(reader: NftReader) -> dict[str, int | None]:
    """See ``Nftables.entries``."""
    ours = _ours(reader.maps(TABLE))
    return {name: count for name, count in reader.entries(TABLE).items() if name in ours}


def read_entries_of(reader: NftReader, name: str, limit: int) -> list[RawElement]:
    """See ``Nftables.entries_of``."""
    if name not in _ours(reader.maps(TABLE)):
        return []
    return list(islice(reader.entries_held(TABLE, name), limit))
