"""One backend as an operator asks for it: how it counts, and what overrides are in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tula.model.config import Backend
from tula.model.health import BackendName, BackendStatus, Override
from tula.model.stats import is_estimate


@dataclass(frozen=True, slots=True)
class InForce:
    """An override: ``what`` is drain, disable or weight, ``end`` the command that ends it."""

    what: str
    text: str
    end: str


@dataclass(frozen=True, slots=True)
class BackendView:
    """One backend. ``connections`` is None where they are not counted, and may be an estimate."""

    service: str
    backend: str
    state: str
    reason: str
    weight: int
    """the configuration's"""
    effective_weight: int
    connections: int | None
    connections_estimated: bool
    keeps_connections: bool
    """whether those that it has stay with it"""
    overrides: tuple[InForce, ...]
    keeps_clients: bool = False
    """It drains, and gets its persistent clients' new connections."""


def view_backend(
    name: BackendName,
    backend: Backend,
    status: BackendStatus,
    override: Override,
    now: float,
    held: Mapping[BackendName, int] | None = None,
) -> BackendView:
    """The backend at ``now``, in seconds of the boot clock; ``held`` are all connections."""
    return BackendView(
        *name,
        state=str(status.state),
        reason=status.reason,
        weight=backend.weight,
        effective_weight=status.weight,
        connections=None if held is None else held.get(name, 0),
        connections_estimated=is_estimate(held, name),
        keeps_connections=status.present,
        overrides=overrides_in_force(name, backend, override, now),
        keeps_clients=status.keeps_clients and not status.stands_by,
    )


def describe_backend(view: BackendView) -> dict[str, object]:
    """The view as JSON has it."""
    return asdict(view)


def overrides_in_force(
    name: BackendName, backend: Backend, override: Override, now: float
) -> tuple[InForce, ...]:
    """What the operator has said of the backend and not taken back, and how to take it back."""
    target = "/".join(name)
    found = []
    if override.disable:
        found.append(InForce("disable", "disabled", f"tula enable {target}"))
    if override.drain:
        over = override.deadline is not None and override.deadline <= now
        text = "drained, and the drain's deadline has passed" if over else "drained"
        text += " with its persistent clients released" if override.release and not over else ""
        found.append(InForce("drain", text, f"tula undrain {target}"))
    if override.weight is not None:
        text = f"at weight {override.weight} in place of the configured {backend.weight}"
        found.append(InForce("weight", text, f"tula weight {target} configured"))
    return tuple(found)
