"""What is wrong with a configuration, and where."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: the place in the configuration, and a message that names the fix.

    ``path`` names keys and list positions, outermost first; empty for the whole configuration.
    ``on_key`` says that the last key itself is wrong (unknown, doubled), not its value.
    """

    path: Path
    message: str
    on_key: bool = False

    @property
    def dotted(self) -> str:
        """The path as users read it: ``services.web.backends.cache-1.weight``, ``ports[2]``."""
        text = ""
        for part in self.path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part}" if text else part
        return text


@dataclass(frozen=True, slots=True)
class PlacedProblem:
    """A problem as it is told: its path as text, and where in the configuration it stands.

    ``path`` is empty for the configuration as a whole; ``line`` and ``column`` count from 1, and
    are None when the file is the problem (missing, unreadable) and not its text. ``file`` is the
    name of one of several files, empty where there is but one.
    """

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None
    file: str = ""

    def describe(self, file: str) -> str:
        """One line for the user: ``F:LINE:COL: path: message``; what is not known is left out."""
        if self.file:
            file = f"{file.removesuffix('/')}/{self.file}"
        where = file if self.line is None else f"{file}:{self.line}:{self.column}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ProblemsError(Exception):
    """Input that is wrong; carries every problem found, in the configuration's order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.dotted}: {p.message}" for p in problems))
        self.problems = problems
