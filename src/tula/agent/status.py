"""What of a backend's side is in place, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tula.agent.diff import Step
from tula.model.backend_setup import TABLE, BackendSide


@dataclass(frozen=True, slots=True)
class Part:
    """One part; ``fault`` is empty when it is as it must be."""

    what: str
    name: str
    fault: str = ""


def parts_of(want: BackendSide, steps: list[Step]) -> list[Part]:
    """All that must be there, and what must not be there any more."""
    faults = {(step.what, step.name): step.fault for step in steps if step.fault}
    parts = [Part(what, name, faults.get((what, name), "")) for what, name in _names(want)]
    left = [step for step in steps if not step.fault]
    return parts + [Part(s.what, s.name, "is not needed any more") for s in left]


def _names(want: BackendSide) -> Iterator[tuple[str, str]]:
    for setting in want.settings:
        yield "sysctl", setting.name
    if want.filter:
        yield "table", TABLE
    for port in want.ports:
        yield "gue port", str(port.port)
    for end in want.ends:
        yield "device", end.name
    for held in want.vips:
        yield "address", f"{held.vip} on {held.device}"
