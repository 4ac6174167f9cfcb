"""The daemon's figures at one moment, as ``/metrics`` tells them. Totals never fall while it runs.

Times are in seconds since the epoch, durations in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tula.model.health import State
from tula.model.stats import Count, TableUse


class CycleOutcome(StrEnum):
    """How a reconciler's cycle ended."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    """something was wanted that was not before"""
    MENDED = "mended"
    """the kernel was not as it had been left"""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """One check of one backend; ``check`` tells the checks of a backend apart: its type, and a
    number where the service has several of it (``http``, ``http-2``)."""

    check: str
    seconds: float | None = None
    """how long the last probe took; None before the first"""
    failures: int = 0


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """One backend of one service."""

    service: str
    backend: str
    state: State
    weight: int
    """its share of new connections now, 0 when it gets none"""
    count: Count = field(default_factory=Count)
    connections: int | None = None
    flaps: int = 0
    """how often it went up or down"""
    probes: tuple[ProbeFigures, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceFigures:
    """One service; its count includes backends that are gone."""

    service: str
    count: Count = field(default_factory=Count)
    panic: bool = False


@dataclass(frozen=True, slots=True)
class CycleFigures:
    """The reconciler's cycles since the daemon started."""

    outcomes: Mapping[CycleOutcome, int] = field(default_factory=dict)
    seconds: float = 0.0
    """all of them together"""
    reactions: int = 0
    """how often the kernel was changed by what a check decided"""
    reaction_seconds: float = 0.0
    """from the decision until the kernel had it, all of them together"""


@dataclass(frozen=True, slots=True)
class LateFigures:
    """By how much probes started late; ``worst`` is of the last minute or two."""

    starts: int = 0
    seconds: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is counted."""

    services: tuple[ServiceFigures, ...] = ()
    backends: tuple[BackendFigures, ...] = ()
    cycles: CycleFigures = field(default_factory=CycleFigures)
    late: LateFigures = field(default_factory=LateFigures)
    named: Mapping[str, Count] = field(default_factory=dict)
    """the data path's own counters, by name, such as ``no_backend``"""
    tables: tuple[TableUse, ...] = ()
    document_accepted: float | None = None
    document_refused: bool = False
    """the file is refused, and an older document runs"""
