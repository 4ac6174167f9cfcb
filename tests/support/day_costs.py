"""What each event of a day cost the clients, from what ``day_load.py`` noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OPEN, NEW, UDP = "kept", "new", "datagram"
"""Kinds of requests: on a connection that stays open, on one of its own, and by UDP."""
_HEADS = (
    "event",
    "open connections broken",
    "new connections lost",
    "UDP requests lost",
    "longest answer",
)


@dataclass
class Cost:
    """Of one event, from its start to the next one's."""

    name: str
    start: float
    exempt: str = ""
    """A backend whose own connections it means to end."""
    asked: list[list[Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[list[Any]]:
        """All requests of a kind."""
        return [each for each in self.asked if each[0] == kind]

    def lost(self, kind: str) -> list[list[Any]]:
        """Those that nobody answered, but for the exempted backend's."""
        unanswered = [each for each in self.of(kind) if each[2] is None]
        return [each for each in unanswered if not self.exempt or each[3] != self.exempt]

    def row(self) -> tuple[str, ...]:
        """For the table."""
        meant = sum(each[2] is None for each in self.of(OPEN)) - len(self.lost(OPEN))
        own = f" ({meant} of its own)" if self.exempt else ""
        new, udp = (f"{len(self.lost(kind))} of {len(self.of(kind))}" for kind in (NEW, UDP))
        waited = max((each[2] for each in self.asked if each[2] is not None), default=0.0)
        return (self.name, f"{len(self.lost(OPEN))}{own}", new, udp, f"{waited:.1f} s")


def attribute(asked: list[list[Any]], costs: list[Cost]) -> None:
    """Each request is the last event's that had begun, or begins while it is on its way."""
    for each in asked:
        for cost in reversed(costs):
            if each[1] >= cost.start - 0.02:
                cost.asked.append(each)
                break


def table(costs: list[Cost]) -> str:
    """In Markdown."""
    rows = [_HEADS, ("---",) * len(_HEADS), *(cost.row() for cost in costs)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def losses(costs: list[Cost]) -> str:
    """The first few of each, to find out why."""
    lines = []
    for cost in costs:
        for kind in (OPEN, NEW, UDP):
            lost = cost.lost(kind)
            told = ", ".join(
                f"{at - cost.start:.2f} s {who} {why}" for _, at, _, who, why in lost[:3]
            )
            lines += [f"{cost.name}: {len(lost)} {kind}: {told}"] if lost else []
    return "\n".join(lines)
