"""Values of the document as messages show them: short, on one line, printable."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from tula.config.tree import Plain
from tula.model.problem import Path

_LONGEST = 40
_BARE = re.compile(r"[A-Za-z0-9_.:/+-]{1,40}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")


def quoted(text: str) -> str:
    """The text as a quoted literal of at most some 40 characters; escapes what is unprintable."""
    if len(text) <= _LONGEST:
        literal = repr(str(text))
        if len(literal) <= _LONGEST + 20:
            return literal
    # Cut before repr: a literal may be ten times as long as its text, and the text megabytes.
    return repr(str(text[: _LONGEST // 2]))[: _LONGEST + 20] + "..."


def shown(value: object) -> str:
    """What stood there: a plain scalar as written, else its kind or a quoted literal."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Plain) and _BARE.fullmatch(value):
        return str(value)
    return quoted(str(value))


def shown_path(path: Path) -> str:
    """``services.web.ports[2]``; keys that are not plain words are quoted and shortened."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        key = part if _BARE_KEY.fullmatch(part) else quoted(part)
        text += f".{key}" if text else key
    return text


def choices(words: Iterable[str]) -> str:
    """``tcp, udp or icmp``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one most likely means, if one is near."""
    # Only the beginning: difflib takes quadratic time.
    near = difflib.get_close_matches(word[:80].lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else None
