"""What the checker is asked to do, and how it tells of it."""

from __future__ import annotations

from dataclasses import dataclass

from tula.health.outcome import Outcome
from tula.model.config import HealthMonitor
from tula.model.health import BackendName, ProbeTarget


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of one backend for one service; several services may share one.

    ``monitor`` is its position in the service's monitors; one with several VIPs has a check for
    each. ``direct``, for ``via: dsr``, is the backend's own address: asked when the probe fails,
    to tell "serves, but does not accept the VIP" from "does not serve".
    """

    backend: BackendName
    monitor: int
    settings: HealthMonitor
    target: ProbeTarget
    direct: ProbeTarget | None = None


@dataclass(frozen=True, slots=True)
class ProbeView:
    """How one probe stands.

    ``backends`` are those that it is sent for. ``passes`` and ``failures`` are consecutive.
    ``late`` is by how much its last start was late, in seconds.
    """

    kind: str
    target: ProbeTarget
    backends: tuple[BackendName, ...]
    up: bool | None
    outcome: Outcome | None
    passes: int
    failures: int
    failed: int
    flaps: int
    late: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """By how much probes started late, since the checker was made.

    ``seconds`` is the sum over all ``starts``; ``worst`` that of the last minute or two.
    """

    starts: int = 0
    seconds: float = 0.0
    worst: float = 0.0
