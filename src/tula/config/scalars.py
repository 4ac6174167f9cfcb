"""Readers of single values: numbers, booleans, durations, words, text.

Each takes what stands in the tree and returns the value, or raises what ``fault`` makes, whose
message names the mend. They read the scalar's text: YAML's own idea of it is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from pydantic_core import PydanticCustomError

from tula.config.shown import choices, meant, shown
from tula.config.tree import Plain

FAULT = "tula"
"""The pydantic error type whose message is ready for the user."""

_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,12}")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?s?")
_UNIT_MS = (86_400_000, 3_600_000, 60_000, 1000, 1)
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
MAX_SECONDS = 365 * 86_400

E = TypeVar("E", bound=StrEnum)


def fault(message: str) -> PydanticCustomError:
    """An error with this message, for pydantic to collect with its path."""
    # The message goes in as a value: as the template, its braces would be read.
    return PydanticCustomError(FAULT, "{text}", {"text": message})


def read_int(value: object, low: int, high: int, hexadecimal: bool = False) -> int:
    """A whole number from ``low`` to ``high``, unquoted; in hexadecimal only when allowed."""
    give = f"give {low} to {high}" if not hexadecimal else f"give {low:#x} to {high:#x}"
    if not isinstance(value, Plain):
        quotes = " without quotes" if isinstance(value, str) and _DECIMAL.fullmatch(value) else ""
        raise fault(f"expected a whole number; got {shown(value)}; {give}{quotes}")
    if _DECIMAL.fullmatch(value):
        number = int(value)
    elif _HEX.fullmatch(value):
        number = int(value, 16)
        if not hexadecimal:
            raise fault(f"{value} is hexadecimal; write {number}")
    elif re.fullmatch(r"[+-]?[0-9]+", value, re.ASCII):
        if len(value) > 18:
            raise fault(f"{shown(value)} is out of range; {give}")
        # YAML 1.1 reads 0100 as octal, people and YAML 1.2 do not.
        raise fault(f"{value} begins with a zero; write {int(value)}")
    else:
        raise fault(f"{shown(value)} is no whole number; {give}")
    if not low <= number <= high:
        raise fault(f"{value} is out of range; {give}")
    return number


def as_bool(value: object) -> bool | None:
    """The boolean that an unquoted scalar is in YAML 1.1, else None."""
    if isinstance(value, Plain):
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
    return None


def read_bool(value: object) -> bool:
    """true or false, unquoted."""
    boolean = as_bool(value)
    if boolean is None:
        raise fault(f"expected true or false; got {shown(value)}")
    return boolean


def read_duration(value: object) -> float:
    """Seconds, from ``1h30m``, ``60s``, ``500ms`` or a number of seconds; more than 0, a year
    at most."""
    if not isinstance(value, str):
        raise fault(f"expected a time such as 60s; got {shown(value)}")
    if len(value) <= 60 and _SECONDS.fullmatch(value):
        seconds = float(value.removesuffix("s"))
    elif value and len(value) <= 60 and (found := _DURATION.fullmatch(value)):
        counts = zip(found.groups("0"), _UNIT_MS, strict=True)
        # Summed as integers, so that 1h30m is 5400.0 exactly.
        seconds = sum(int(count) * unit for count, unit in counts) / 1000
    else:
        raise fault(f"{shown(value)} is no time; give one such as 2h, 1h30m, 60s or 500ms")
    if not 0 < seconds <= MAX_SECONDS:
        raise fault(f"{value} is out of range; give more than 0s and at most 365d")
    return seconds


def read_duration_or_zero(value: object) -> float:
    """As ``read_duration``, or 0 for not at all."""
    if isinstance(value, str) and re.fullmatch(r"0{1,9}(\.0{1,9})?s?", value):
        return 0.0
    return read_duration(value)


def read_text(value: object) -> str:
    """Text on one line, not empty, at most 1,024 characters."""
    if not isinstance(value, str) or not value:
        raise fault(f"expected text; got {shown(value)}")
    if len(value) > 1024:
        raise fault(f"longer than 1024 characters: {shown(value)}")
    if not value.isprintable():
        raise fault(f"{shown(value)} holds control characters; give text on one line")
    return str(value)


def word_of(enum: type[E], key: str) -> Callable[[object], E]:
    """A reader of one of the enum's words, for the key that the messages name."""
    words = [str(member) for member in enum]

    def read(value: object) -> E:
        if not isinstance(value, str):
            raise fault(f"expected {choices(words)}; got {shown(value)}")
        if value in words:
            return enum(str(value))
        near = meant(value, words)
        mend = f"did you mean {near}?" if near else f"give {choices(words)}"
        raise fault(f"unknown {key} {shown(value)}; {mend}")

    return read
