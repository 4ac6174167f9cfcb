"""The errors of a configuration, and how messages show its values and paths."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from tula.config.tree import Mark, Plain, Positions
from tula.model.problem import Path, PlacedProblem, Problem, ProblemsError

_LONGEST = 40
_BARE = re.compile(r"[A-Za-z0-9_.:/+-]{1,40}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,63}")


class ConfigError(ProblemsError):
    """A configuration that is refused: all its problems, by position, and where its parts are."""

    def __init__(self, problems: list[Problem], positions: Positions) -> None:
        super().__init__(problems)
        self.positions = positions


class BrokenError(Exception):
    """Text that cannot become a tree, with the mark of the error; None: there is no text."""

    def __init__(self, message: str, mark: Mark | None) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


def place(problem: Problem, positions: Positions) -> PlacedProblem:
    """The problem with its place in the text; no place when the error is the file's."""
    path = shown_path(problem.path)
    if not positions.known:
        return PlacedProblem(problem.message, path)
    line, column = positions.of(problem.path, problem.on_key)
    file, line = positions.in_file(line)
    return PlacedProblem(problem.message, path, line, column, file)


def describe(file: str, problem: Problem, positions: Positions) -> str:
    """One line for the user: ``F:LINE:COL: path: message``.

    The path and its colon are left out when it is empty, the line and column when the problem
    is the file's (missing, a directory) and not the text's.
    """
    return place(problem, positions).describe(file)


def by_position(problems: list[Problem], positions: Positions) -> list[Problem]:
    """The problems once each, in the order of the text."""
    once = dict.fromkeys(problems)
    return sorted(once, key=lambda problem: positions.of(problem.path, problem.on_key))


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
