"""What is wrong with a document, and where."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: the place in the document, and a message that names the mend.

    ``path`` names keys and list positions, outermost first; empty for the whole document.
    ``on_key`` says that the fault is the last key itself (unknown, doubled), not its value.
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


class ProblemsError(Exception):
    """Input that is wrong; carries every problem found, in the document's order."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.dotted}: {p.message}" for p in problems))
        self.problems = problems
