"""What a probe found, in one readable line. Servers are not trusted with that line."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_LONGEST = 160


class Fault(StrEnum):
    """How a probe failed, as far as it says where to look."""

    REFUSED = "refused"
    """something answered that nothing listens"""
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    """a router, or this machine, says that there is no way"""
    ANSWER = "answer"
    """an answer came, and was wrong"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one probe.

    ``passed`` is None when it could not be asked for a reason of this machine's own, such as too
    many open files: that says nothing of the backend and counts neither way. ``warning`` is what
    is wrong and does not count.
    """

    passed: bool | None
    evidence: str
    seconds: float = 0.0
    warning: str = ""
    fault: Fault | None = None


def clean(text: str | bytes, longest: int = _LONGEST) -> str:
    """Text of a server's on one line: control characters escaped, the length bounded."""
    if isinstance(text, bytes):
        text = text[: 4 * longest].decode("utf-8", "backslashreplace")
    cut = text[:longest].strip()
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in cut)
    return shown if len(text) <= longest and len(shown) <= longest else f"{shown[:longest]}..."
