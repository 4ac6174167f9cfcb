"""Documents from files and from text: what the other parts of Tula call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tula.config.compose import compose
from tula.config.errors import BrokenError, DocumentError, by_position, describe, place
from tula.config.source import decode, read_bytes
from tula.config.tree import Positions
from tula.config.validate import validate
from tula.model.config import Config
from tula.model.problem import Problem

__all__ = [
    "Document",
    "DocumentError",
    "Positions",
    "describe",
    "load_document",
    "parse_document",
    "place",
]


@dataclass(frozen=True)
class Document:
    """A document without problems: its Config, its text, where its parts stand, and warnings."""

    config: Config
    source: str
    positions: Positions
    warnings: list[Problem]


def load_document(path: Path) -> Document:
    """Read and validate the document in a file.

    Raises DocumentError: with all the document's problems by position, or with one problem and
    ``positions.known`` False when the file is missing, unreadable, or not a regular file. Does
    not wait on pipes, and reads no more than 16 MiB.
    """
    try:
        data = read_bytes(path)
    except BrokenError as error:
        raise _broken(error) from None
    return parse_document(data)


def parse_document(text: str | bytes) -> Document:
    """Validate a document; bytes are UTF-8. Raises DocumentError with all its problems."""
    try:
        source = decode(text)
        root, problems = compose(source)
    except BrokenError as error:
        raise _broken(error) from None
    positions = Positions(root)
    outcome = validate(root, positions)
    problems.extend(outcome.problems)
    if problems or outcome.config is None:
        raise DocumentError(by_position(problems, positions), positions)
    return Document(outcome.config, source, positions, by_position(outcome.warnings, positions))


def _broken(error: BrokenError) -> DocumentError:
    # The text has no tree whose paths could be asked for, so the whole stands at the fault.
    return DocumentError([Problem((), error.message)], Positions(whole=error.mark))
