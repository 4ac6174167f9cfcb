"""Rules of checks that say more than up or down: weights, drains, and agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tula.config.models import GivenCheck
from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.config import Scheduler
from tula.model.monitor import HealthMonitor, HttpProbe
from tula.model.problem import Path, Problem

_NO_EXIT = "exit is for scripts, which have an exit status; give weight_from: body"
_BOTH = (
    "cannot be combined with weight_from: body, where the whole body is the weight; leave one out"
)
_VIA = "an agent is asked at the backend's own address; leave via out"
_ALONE = (
    "an agent tells how a backend is to be used, not that it serves, and without its answer "
    "nothing changes; give another check beside it"
)
_AT_ONCE = "has no effect here: what an agent says counts at once"


def answer_problems(
    check: GivenCheck, place: Callable[[str], Path | None], own: Path
) -> Iterator[Problem]:
    """What contradicts itself in one check.

    ``place`` tells where a key stands that counts for it, ``own`` is the path of its own map.
    """
    monitor = check.monitor
    if monitor is None:
        return
    if monitor.auxiliary and "via" in check.keys and monitor.via == "dsr":
        yield Problem((*own, "via"), _VIA, on_key=True)
    if isinstance(monitor.probe, HttpProbe) and monitor.probe.weight_from:
        where = place("weight_from") or own
        unread = where == (*own, "weight_from") and "weight_from" not in check.keys
        if monitor.probe.weight_from == "exit" and not unread:
            yield Problem(where, _NO_EXIT)
        elif monitor.probe.body:
            yield Problem(place("body") or own, _BOTH, on_key=True)


def answer_warnings(services: list[Merged], positions: Positions) -> Iterator[Problem]:
    """What is right, and does nothing or less than it seems; for services without problems."""
    for service in services:
        key = "health" if service.health is not None else "checks"
        if key not in service.given:
            continue
        path, found = service.given[key], _checks(service)
        monitors = [check.monitor for check in found if check.monitor is not None]
        if monitors and all(monitor.auxiliary for monitor in monitors):
            yield Problem(path, _ALONE, on_key=True)
        for index, (check, monitor) in enumerate(zip(found, monitors, strict=True)):
            own = _own(service, path, index, len(found), positions)
            for name in sorted(check.keys & {"rise", "fall"} if monitor.auxiliary else ()):
                yield Problem((*own, name), _AT_ONCE, on_key=True)
            if _weighs(monitor) and service.value.scheduler is Scheduler.RR:
                message = "rr looks at no weight but 0; give scheduler: wrr for others to count"
                yield Problem((*own, "weight_from") if _weight_key(check) else own, message)


def _checks(service: Merged) -> tuple[GivenCheck, ...]:
    return service.health.checks if service.health is not None else service.checks


def _own(service: Merged, path: Path, index: int, count: int, positions: Positions) -> Path:
    """Where the map of one check stands."""
    if service.health is None:
        return positions.item(path, index, count)
    return positions.item((*path, "checks"), index, count) if service.health.several else path


def _weighs(monitor: HealthMonitor) -> bool:
    return bool(getattr(monitor.probe, "weight_from", ""))


def _weight_key(check: GivenCheck) -> bool:
    return "weight_from" in check.keys
