"""Which backends of a service serve, of those that can: levels, ``minimum`` and panic. Pure.

A backend can serve that is up or was never checked, and that the operator wants to serve. The
lowest level serves of which one can; all above it stand by. Level 0 are the backends that are no
backups; of them ``minimum`` must be able to, or they count as none. Whoever stands by keeps the
flows that it has, and gets none.

Panic (``panic_threshold``) is about the monitors of the lowest level that the operator wants to
serve. It never takes anything from a backup that can serve, and where ``minimum`` is more than one
it does not make up for those that are missing: then nobody serves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from tula.model.config import Config, OnDown, VirtualService
from tula.model.health import BackendName, BackendStatus, Override, State

_ABLE = frozenset({State.UP, State.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Pool:
    """How the backends of one service stand together, by name.

    ``backups``: the level of the backups that serve, since too few of a lower level can; 0 while
    none has to. ``short``: nobody serves, since fewer can than its ``minimum``.
    """

    statuses: Mapping[str, BackendStatus]
    panics: bool = False
    backups: int = 0
    short: bool = False


def plan_pool(
    service: VirtualService,
    alone: Mapping[str, BackendStatus],
    candidates: Mapping[str, int],
) -> Pool:
    """``alone`` is how each backend counts by itself; ``candidates`` are those that the operator
    wants new connections to go to, with their weights."""
    levels = {backend.name: backend.backup for backend in service.backends}
    able = Counter(levels[name] for name, status in alone.items() if _can_serve(status))
    serving = _serving_level(service.minimum, able)
    first = min((levels[name] for name in candidates), default=0)
    counted = {name: weight for name, weight in candidates.items() if levels[name] == first}
    trusted = serving == first or (serving is None and service.minimum == 1)
    panics = trusted and _must_panic(service.policy.panic, alone, counted)
    statuses = dict(alone)
    for name, status in alone.items():
        if panics and name in counted and status.state is State.DOWN:
            reason = f"{status.reason}; serves anyway: too few are up"
            statuses[name] = BackendStatus(State.DOWN, counted[name], True, reason)
        elif levels[name] != serving and _can_serve(status):
            reason = _why_standing_by(service, levels[name])
            statuses[name] = replace(status, weight=0, reason=reason, stands_by=True)
        elif status.state is State.DRAINING and serving is not None and levels[name] > serving:
            statuses[name] = replace(status, stands_by=True)
    level = first if serving is None and panics else serving
    return Pool(
        statuses,
        panics,
        backups=level if level is not None and level > min(levels.values(), default=0) else 0,
        short=serving is None and service.minimum > 1 and bool(candidates),
    )


def serves_by_backups(
    service: VirtualService, statuses: Mapping[BackendName, BackendStatus]
) -> bool:
    """Whether new connections go to backups, since too few of a lower level can serve."""
    lowest = min((backend.backup for backend in service.backends), default=0)
    return any(
        backend.backup > lowest and status.weight > 0
        for backend in service.backends
        if (status := statuses.get((service.name, backend.name))) is not None
    )


def kept_while_down(
    config: Config,
    refusing: Collection[BackendName],
    overrides: Mapping[BackendName, Override],
) -> frozenset[BackendName]:
    """Which backends of services with ``on_down: keep`` were down, of those that a data path gives
    no new flows: the others are drained, or stand by."""
    found = set()
    for service in config.services:
        if service.on_down is not OnDown.KEEP or not service.health:
            continue
        names = {backend.name: (service.name, backend.name) for backend in service.backends}
        able = [b.backup for b in service.backends if names[b.name] not in refusing]
        for backend in service.backends:
            said = overrides.get(names[backend.name], Override())
            weight = backend.weight if said.weight is None else said.weight
            stands_by = backend.backup > min(able, default=backend.backup)
            if names[backend.name] in refusing and weight and not said.drain and not stands_by:
                found.add(names[backend.name])
    return frozenset(found)


def _can_serve(status: BackendStatus) -> bool:
    return status.state in _ABLE and status.weight > 0


def _serving_level(minimum: int, able: Mapping[int, int]) -> int | None:
    """The level that serves, of how many each level has that can; None: nobody does."""
    if able.get(0, 0) >= minimum:
        return 0
    return min((level for level in able if level), default=None)


def _must_panic(
    limit: int | None, statuses: Mapping[str, BackendStatus], counted: Mapping[str, int]
) -> bool:
    """Whether so little of the weight is up that the monitors cannot be trusted."""
    if limit is None:
        return False
    total = sum(counted.values())
    down = [w for name, w in counted.items() if statuses[name].state is State.DOWN]
    return bool(down) and (total - sum(down)) * 100 <= limit * total


def _why_standing_by(service: VirtualService, level: int) -> str:
    if level:
        return f"stands by as backup, level {level}"
    return f"stands by: fewer than the minimum of {service.minimum} can serve"
