"""Which version of the rules a table holds: shown by the name of a counter in it.

See docs/adr/0010. A table without such a counter is older than versions: 0.

====== =====================================================
schema what changed
====== =====================================================
1      the counter
2      the names of maps and chains: see ``LEGACY_NAMES``
====== =====================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from tula.dataplane.nft.ruleset import Kind, MapName, split_name

SCHEMA = 2
"""Raise it when an older Tula would misread what this one writes."""

LEGACY_NAMES = {
    "via4": Kind.NEXTHOP4,
    "via6": Kind.NEXTHOP6,
    "exact4": Kind.SERVICE_PORT4,
    "exact6": Kind.SERVICE_PORT6,
    "range4": Kind.SERVICE_RANGE4,
    "range6": Kind.SERVICE_RANGE6,
    "any4": Kind.SERVICE_ANY4,
    "any6": Kind.SERVICE_ANY6,
}
"""The maps that ids and counts are recovered from, as they were named up to schema 1.

Their elements have the same form as today's. Every other map that went or got another name is
removed unread, and every map that packets fill and that holds flows still has its name.
"""

_PREFIX = "schema_"


def schema_counter(number: int = SCHEMA) -> str:
    """The counter that names a version; no rule counts with it."""
    return f"{_PREFIX}{number}"


def is_schema(counter: str) -> bool:
    """Whether a counter names a version."""
    return counter.startswith(_PREFIX) and counter.removeprefix(_PREFIX).isdecimal()


def schema_of(counters: Iterable[str]) -> int:
    """The version of the table that has these counters; the highest, if there are several."""
    numbers = (int(name.removeprefix(_PREFIX)) for name in counters if is_schema(name))
    return max(numbers, default=0)


@lru_cache(maxsize=1 << 13)
def readable_kind(map_name: str) -> Kind | None:
    """The kind of a map of this schema or an older one, by its name; None for any other map.

    For reading what a table holds. What is written goes by ``MapName``, which knows this schema's
    names alone.
    """
    parsed = readable_map(map_name)
    return parsed.kind if parsed is not None else None


@lru_cache(maxsize=1 << 13)
def readable_map(map_name: str) -> MapName | None:
    """The same map under this schema's name."""
    words, _ = split_name(map_name)
    if words in LEGACY_NAMES:
        map_name = f"{LEGACY_NAMES[words]}{map_name.removeprefix(words)}"
    return MapName.parse(map_name)
