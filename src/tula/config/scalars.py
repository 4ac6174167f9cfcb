"""Readers of single values: numbers, booleans, durations, words, text.

Each takes what stands in the tree and returns the value, or raises what ``invalid`` makes, whose
message names the fix. They read the scalar's text: YAML's own idea of it is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic_core import PydanticCustomError

from tula.config.errors import choices, meant, shown
from tula.config.tree import Plain
from tula.model.setting import Integer

INVALID = "tula"
"""The pydantic error type whose message is ready for the user."""

_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,12}")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?s?")
_UNIT_MS = (86_400_000, 3_600_000, 60_000, 1000, 1)
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
MAX_SECONDS = 365 * 86_400
HEADER = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_OWN_HEADERS = ("connection", "content-length", "host", "transfer-encoding", "accept-encoding")

V = TypeVar("V")


def invalid(message: str) -> PydanticCustomError:
    """An error with this message, for pydantic to collect with its path."""
    # The message goes in as a value: as the template, its braces would be read.
    return PydanticCustomError(INVALID, "{text}", {"text": message})


def read_int(value: object, low: int, high: int, hexadecimal: bool = False) -> int:
    """A whole number from ``low`` to ``high``, unquoted; in hexadecimal only when allowed."""
    give = f"give {low} to {high}" if not hexadecimal else f"give {low:#x} to {high:#x}"
    if not isinstance(value, Plain):
        quotes = " without quotes" if isinstance(value, str) and _DECIMAL.fullmatch(value) else ""
        raise invalid(f"expected a whole number; got {shown(value)}; {give}{quotes}")
    if _DECIMAL.fullmatch(value):
        number = int(value)
    elif _HEX.fullmatch(value):
        number = int(value, 16)
        if not hexadecimal:
            raise invalid(f"{value} is hexadecimal; write {number}")
    elif re.fullmatch(r"[+-]?[0-9]+", value, re.ASCII):
        if len(value) > 18:
            raise invalid(f"{shown(value)} is out of range; {give}")
        # YAML 1.1 reads 0100 as octal, people and YAML 1.2 do not.
        raise invalid(f"{value} begins with a zero; write {int(value)}")
    else:
        raise invalid(f"{shown(value)} is not a whole number; {give}")
    if not low <= number <= high:
        raise invalid(f"{value} is out of range; {give}")
    return number


def int_reader(values: Integer) -> Callable[[object], int | None]:
    """A reader of the whole numbers that are declared so."""

    def read(value: object) -> int | None:
        if values.never and (not isinstance(value, Plain) or not _DECIMAL.fullmatch(value)):
            return _percentage(value, values)
        number = read_int(value, values.low, values.high, values.hexadecimal)
        if values.prime and not is_prime(number):
            below = next(n for n in range(number, 1, -1) if is_prime(n))
            above = next(n for n in range(number, values.high + 1) if is_prime(n))
            raise invalid(f"{number} is not prime; the nearest primes are {below} and {above}")
        rest = (number + values.offset) % values.multiple
        if rest and values.offset:
            end = number - rest + values.multiple
            block = f"a block of {values.multiple:#x} marks"
            raise invalid(f"{value} does not end {block}; write {end:#x}")
        if rest:
            below = number - rest
            step = f"a multiple of {values.multiple:#x}"
            raise invalid(f"{value} is not {step}; the one below is {below:#x}")
        return number

    return read


def _percentage(value: object, values: Integer) -> int | None:
    if isinstance(value, Plain) and value == values.never:
        return None
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal():
        raise invalid(f"{shown(value)}: write the percentage without %")
    if not isinstance(value, Plain) or not re.fullmatch(r"[+-]?[0-9]+", value):
        bounds = f"{values.low} to {values.high}"
        raise invalid(f"expected a percentage, {bounds}, or {values.never}; got {shown(value)}")
    return read_int(value, values.low, values.high)


def is_prime(number: int) -> bool:
    """Whether a number is prime, by trial division: for small ones."""
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


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
        raise invalid(f"expected true or false; got {shown(value)}")
    return boolean


def read_duration(value: object) -> float:
    """Seconds, from ``1h30m``, ``60s``, ``500ms`` or a number of seconds; more than 0, a year
    at most."""
    if not isinstance(value, str):
        raise invalid(f"expected a time such as 60s; got {shown(value)}")
    if len(value) <= 60 and _SECONDS.fullmatch(value):
        seconds = float(value.removesuffix("s"))
    elif value and len(value) <= 60 and (found := _DURATION.fullmatch(value)):
        counts = zip(found.groups("0"), _UNIT_MS, strict=True)
        # Summed as integers, so that 1h30m is 5400.0 exactly.
        seconds = sum(int(count) * unit for count, unit in counts) / 1000
    else:
        raise invalid(f"invalid time {shown(value)}; give one such as 2h, 1h30m, 60s or 500ms")
    if not 0 < seconds <= MAX_SECONDS:
        raise invalid(f"{value} is out of range; give more than 0s and at most 365d")
    return seconds


def read_duration_or_zero(value: object) -> float:
    """As ``read_duration``, or 0 for not at all."""
    if isinstance(value, str) and re.fullmatch(r"0{1,9}(\.0{1,9})?s?", value):
        return 0.0
    return read_duration(value)


def read_text(value: object) -> str:
    """Text on one line, not empty, at most 1,024 characters."""
    if not isinstance(value, str) or not value:
        raise invalid(f"expected text; got {shown(value)}")
    if len(value) > 1024:
        raise invalid(f"longer than 1024 characters: {shown(value)}")
    if not value.isprintable():
        raise invalid(f"{shown(value)} has control characters; give text on one line")
    return str(value)


def word_reader(words: Mapping[str, V], called: str) -> Callable[[object], V]:
    """A reader of one of a few words, as the value that it stands for; ``called`` is what
    messages call it."""

    def read(value: object) -> V:
        if not isinstance(value, str):
            raise invalid(f"expected {choices(words)}; got {shown(value)}")
        if value in words:
            return words[str(value)]
        near = meant(value, words)
        fix = f"did you mean {near}?" if near else f"give {choices(words)}"
        raise invalid(f"unknown {called} {shown(value)}; {fix}")

    return read


def read_http_path(value: object) -> str:
    """The path of a request, percent-encoded, from its first slash."""
    text = read_text(value)
    if not text.startswith("/"):
        raise invalid(f"{shown(value)} does not start with /; write {shown('/' + text)}")
    if " " in text or not text.isascii():
        raise invalid(f"{shown(value)} must be percent-encoded; write %20 for a space")
    return text


def read_file(value: object) -> str:
    """The absolute path of a file on this machine."""
    text = read_text(value)
    if not text.startswith("/"):
        raise invalid(f"{shown(value)} is not an absolute path; give one that begins with /")
    if text.endswith("/"):
        raise invalid(f"{shown(value)} names a directory; give the file")
    return text


def read_header_name(value: object) -> str:
    """The name of a header that a probe may send beside its own."""
    text = read_text(value)
    if not re.fullmatch(HEADER, text):
        raise invalid(f"invalid header name {shown(value)}; give one such as X-Probe")
    if text.lower() == "host":
        raise invalid("the Host header has its own key; use host")
    if text.lower() in _OWN_HEADERS:
        raise invalid(f"the check sets the header {shown(value)} itself; remove it")
    return text
