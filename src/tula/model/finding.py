"""What the doctor found: a problem by its id, the evidence, and the fix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HERE = "here"
"""The machine on which the doctor ran, as the place where commands are run."""


class Severity(StrEnum):
    """Traffic is lost (error), may be lost later or in part (warning), or is fine (note)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def is_problem(self) -> bool:
        """Whether it makes the doctor's exit status 1."""
        return self is not Severity.NOTE


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: ``id`` is short and never changes, ``where`` is a backend or an interface.

    ``certain``: known, not inferred from missing answers. ``commands`` fix it when root runs them
    in a shell on the machine ``on`` (``here`` or a backend's name), in this order; empty where no
    command can.
    """

    id: str
    severity: Severity
    where: str
    evidence: str
    fix: str
    certain: bool = True
    on: str = HERE
    commands: tuple[str, ...] = ()
