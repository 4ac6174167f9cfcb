"""Which version of the rules a table holds: told by the name of a counter in it.

See docs/adr/0010. Without such a counter the table is from before there were versions: 0.
"""

from __future__ import annotations

from collections.abc import Iterable

SCHEMA = 1
"""Raise it when an older Tula would misread what this one writes."""

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
