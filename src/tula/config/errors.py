"""The error of a document, and the line that a user reads of it."""

from __future__ import annotations

from tula.config.shown import shown_path
from tula.config.tree import Mark, Positions
from tula.model.problem import PlacedProblem, Problem, ProblemsError


class DocumentError(ProblemsError):
    """A document that is refused: all its problems, by position, and the means to place them."""

    def __init__(self, problems: list[Problem], positions: Positions) -> None:
        super().__init__(problems)
        self.positions = positions


class BrokenError(Exception):
    """Text that cannot become a tree, with the mark of the fault; None: there is no text."""

    def __init__(self, message: str, mark: Mark | None) -> None:
        super().__init__(message)
        self.message = message
        self.mark = mark


def place(problem: Problem, positions: Positions) -> PlacedProblem:
    """The problem with its place in the text; no place when the fault is the file's."""
    line, column = None, None
    if positions.known:
        line, column = positions.of(problem.path, problem.on_key)
    return PlacedProblem(problem.message, shown_path(problem.path), line, column)


def describe(file: str, problem: Problem, positions: Positions) -> str:
    """One line for the user: ``F:LINE:COL: path: message``.

    The path and its colon are left out when it is empty, the line and column when the problem
    is the file's (missing, a directory) and not the text's.
    """
    return place(problem, positions).describe(file)


def by_position(problems: list[Problem], positions: Positions) -> list[Problem]:
    """The problems once each, in the order of the document."""
    once = dict.fromkeys(problems)
    return sorted(once, key=lambda problem: positions.of(problem.path, problem.on_key))
