"""What differs between the kernel and the configuration, in words for people; pure."""

from __future__ import annotations

from collections.abc import Iterable

from tula.dataplane.port import ChangeStep

SHOWN = 20
"""Differences that are told one by one: a machine may lack thousands of elements."""
NO_TABLE = "the kernel has no table of Tula: nothing is forwarded"

_IN_TABLE = frozenset({"table", "chain", "map", "counter", "object"})
_DORMANT = "Tula's table in the kernel is dormant: nothing is forwarded"
FORWARDS_NOTHING = frozenset({NO_TABLE, _DORMANT})

_WORDS = {" more": " missing", " fewer": " too many", " changed": " different"}
"""What is to be done about elements, and what is wrong with them."""


def describe_differences(steps: Iterable[ChangeStep], limit: int = SHOWN) -> tuple[str, ...]:
    """A line for each thing that is not as it should be, and one for those beyond ``limit``.

    ``steps`` are what would be done about it (``Change.steps``). A table that is missing stands
    for all that would be in it.
    """
    found = list(steps)
    lines: list[str] = []
    if any((step.verb, step.what) == ("add", "table") for step in found):
        lines.append(NO_TABLE)
        found = [step for step in found if step.what not in _IN_TABLE]
    shown, rest = found[: limit - len(lines)], len(found) - limit + len(lines)
    lines += map(_describe, shown)
    return (*lines, f"and {rest} more") if rest > 0 else tuple(lines)


def _describe(step: ChangeStep) -> str:
    what, name, detail = step.what, step.name, step.detail
    if what == "address":
        wrong = "is missing" if step.verb == "add" else "should not be there,"
        return f"VIP {name} {wrong} {detail}".rstrip()
    if (step.verb, what) == ("change", "table"):
        return _DORMANT
    if step.verb == "change":
        for todo, wrong in _WORDS.items():
            detail = detail.replace(todo, wrong)
        return f"{what} {name} differs" + (f" ({detail})" if detail else "")
    return f"{what} {name} " + ("is missing" if step.verb == "add" else "should not be there")
