"""An engine beside Tula that announces VIPs, as this machine has it."""

from __future__ import annotations

from dataclasses import dataclass

from tula.kernel.engines import Engine
from tula.model.errors import KernelError
from tula.vip.keepalived import BASE, SERVICES, STANDBY


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine of this machine; ``missing`` says how to install it, where it is not.

    ``configured``: its file is there. ``kept``: systemd starts it, by the unit. ``priority`` is
    what keepalived should advertise, None where that is not known.
    """

    name: str
    package: str
    unit: str
    missing: str = ""
    configured: bool = True
    runs: bool = True
    kept: bool = False
    priority: int | None = None


def observe_engine(engine: Engine) -> EngineState:
    """Raises KernelError."""
    program = engine.program
    return EngineState(
        name=program.name,
        package=program.package,
        unit=program.unit,
        missing=engine.missing(),
        configured=engine.read() is not None,
        runs=engine.runs(),
        kept=engine.kept,
        priority=_priority(engine),
    )


def _priority(engine: Engine) -> int | None:
    try:
        told = [engine.read(name) for name in (SERVICES, STANDBY)]
        return BASE + sum(int(text) for text in told if text) if any(told) else None
    except (KernelError, ValueError):
        return None
