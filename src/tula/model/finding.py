"""What the doctor found: a fault by its name, how it shows, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HERE = "here"
"""The machine on which the doctor ran, as the place of a mend."""


class Severity(StrEnum):
    """How bad it is: traffic is lost, will be lost some day, or may look odd."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def is_fault(self) -> bool:
        """Whether it makes the doctor's exit status 1."""
        return self is not Severity.NOTE


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault that was found: its short fixed name; ``where`` is a backend or an interface.

    ``certain``: it is known, not guessed from what was silent. ``commands`` mend it, run by root
    in a shell on the machine ``on`` (``here`` or a backend's name), in their order; there are none
    where only a human can.
    """

    fault: str
    severity: Severity
    where: str
    evidence: str
    mend: str
    certain: bool = True
    on: str = HERE
    commands: tuple[str, ...] = ()
