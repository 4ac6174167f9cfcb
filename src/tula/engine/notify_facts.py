"""How notifications stand, as ``tula status`` and the metrics show it. Values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReceiverFacts:
    """One receiver of ``notify``. Times are in seconds since the epoch, None: never.

    ``sent`` and ``failed`` count messages and tries, ``events`` those that were told, ``given_up``
    those that never will be. ``waiting``: events that are still to be told, ``held`` those that
    another balancer should tell.
    """

    name: str
    kind: str
    sent: int = 0
    failed: int = 0
    events: int = 0
    given_up: int = 0
    waiting: int = 0
    held: int = 0
    last_success: float | None = None
    last_failure: float | None = None
    error: str = ""
    """why the last try failed; empty once one succeeded"""
    failing_since: float | None = None

    def describe(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "receiver": self.name,
            "kind": self.kind,
            "sent": self.sent,
            "failed": self.failed,
            "events": self.events,
            "given_up": self.given_up,
            "waiting": self.waiting,
            "held": self.held,
            "last_success": self.last_success,
            "last_failure": self.last_failure,
            "error": self.error or None,
            "failing_since": self.failing_since,
        }


@dataclass(frozen=True, slots=True)
class TestResult:
    """What became of a test message; ``error`` is empty if it was taken."""

    receiver: str
    kind: str
    error: str
    seconds: float

    def describe(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "receiver": self.receiver,
            "kind": self.kind,
            "sent": not self.error,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
        }
