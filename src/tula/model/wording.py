"""Numbers and lists in messages."""

from __future__ import annotations

from collections.abc import Sequence

_NAMED = 5


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 service``, ``2 services``; ``plural`` for nouns that do not take an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def named(names: Sequence[str]) -> str:
    """``a, b and c``; of many, the first and how many more."""
    shown = list(names[:_NAMED])
    if len(names) > _NAMED:
        return f"{', '.join(shown)} and {len(names) - _NAMED:,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def describe_duration(seconds: float) -> str:
    """A time as configurations have it, such as ``90ms``, ``10m`` or ``1h30m``."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    left = whole + seconds % 1
    if left or not parts:
        parts.append(f"{left:g}s")
    return "".join(parts)


def printable(text: str, most: int) -> str:
    """At most so many characters of what somebody else said, without those that a terminal obeys
    and those that no file can hold."""
    return "".join(char if char.isprintable() else "?" for char in text[:most])
