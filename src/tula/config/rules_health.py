"""Rules of a service's health checks, after merging what they share."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.merged import Merged
from tula.config.monitor import COMMON, KINDS, CheckModel, HealthModel, merged_checks
from tula.config.shown import choices
from tula.config.tree import Positions
from tula.model.problem import Path, Problem

_NEEDED = {"dns": ("name", "such as example.org"), "script": ("command", "such as [/bin/check]")}
_TYPE = "give type: tcp, http, https, udp, dns, icmp or script"
_PORT = "needs via: direct; through the VIP a check goes to the service's own port"


def health_problems(service: Merged, positions: Positions) -> Iterator[Problem]:
    """What is wrong with the checks of this service, those of its defaults among them."""
    given, keys = service.given, service.keys
    if "health" in given and "checks" in given:
        message = "stands beside health; give health for one check or checks for several"
        yield Problem(given["checks"], message, on_key=True)
    if service.has("health") and keys.health is not None:
        yield from _health(service, keys.health, given["health"], positions)
    if service.has("checks"):
        for index, monitor in enumerate(keys.checks):
            path = positions.item(given["checks"], index, len(keys.checks))
            yield from _own_problems(monitor, monitor, path)
            yield from _monitor_problems(service, monitor, (path,), positions)


def _health(
    service: Merged, health: HealthModel, path: Path, positions: Positions
) -> Iterator[Problem]:
    several = positions.has((*path, "checks"))
    if not several:
        if not positions.has((*path, "type")):
            yield Problem(path, f"needs 'type'; {_TYPE}; or checks for several", on_key=True)
        yield from _own_problems(health, health, path)
        yield from _monitor_problems(service, health, (path,), positions)
        return
    checks = merged_checks(health) if "checks" in health.model_fields_set else []
    for index, (own, check) in enumerate(zip(health.checks, checks, strict=True)):
        where = positions.item((*path, "checks"), index, len(checks))
        if not check.type and not any(positions.has((*at, "type")) for at in (where, path)):
            yield Problem(where, f"needs 'type'; {_TYPE}, here or in health", on_key=True)
        yield from _own_problems(own, check, where)
        yield from _monitor_problems(service, check, (where, path), positions)
    kinds = {check.type for check in checks}
    if checks and kinds <= KINDS.keys() and not positions.cut((*path, "checks"), len(checks)):
        yield from _unused(health, kinds, path)


def _own_problems(own: CheckModel, check: CheckModel, path: Path) -> Iterator[Problem]:
    """Keys given in the check itself that its kind does not take; ``check`` is the merged one."""
    if check.type not in KINDS:
        return
    for key in sorted(own.model_fields_set):
        kinds = [kind for kind, keys in KINDS.items() if key in keys]
        if kinds and key not in KINDS[check.type]:
            message = f"a check of type {check.type} has no {key!r}; it is for {choices(kinds)}"
            yield Problem((*path, key), message, on_key=True)


def _unused(health: HealthModel, kinds: set[str], path: Path) -> Iterator[Problem]:
    """Keys beside ``checks`` that none of them takes."""
    taken = COMMON.union(*(KINDS[kind] for kind in kinds))
    special = {key for keys in KINDS.values() for key in keys}
    for key in sorted((health.model_fields_set & special) - taken):
        fitting = choices([kind for kind, keys in KINDS.items() if key in keys])
        message = f"none of the checks takes {key!r}; it is for {fitting}"
        yield Problem((*path, key), message, on_key=True)


def _monitor_problems(
    service: Merged, check: CheckModel, where: tuple[Path, ...], positions: Positions
) -> Iterator[Problem]:
    """What a check lacks, and keys that contradict each other or the service.

    ``where``: the check's path, and that of the map that its other keys may stand in.
    """
    if check.type not in KINDS:
        return

    def place(key: str) -> Path | None:
        # Asked of the document: a key that is given and faulty has its own problem.
        return next(((*at, key) for at in where if positions.has((*at, key))), None)

    needed, example = _NEEDED.get(check.type, ("", ""))
    if needed and place(needed) is None:
        message = f"a check of type {check.type} needs {needed!r}; give one {example}"
        yield Problem(where[0], message, on_key=True)
    fast = place("fast_interval")
    if fast is not None and check.fast_interval > check.interval:
        message = f"{check.fast_interval:g}s is more than the interval of {check.interval:g}s"
        yield Problem(fast, f"{message}; give that or less")
    if "port" in KINDS[check.type] and service.has("ports"):
        yield from _port_problems(service, check, place("port"), where[0])


def _port_problems(
    service: Merged, check: CheckModel, port: Path | None, path: Path
) -> Iterator[Problem]:
    ports = service.keys.ports
    # What is wrong for this service only is said of it, wherever the check stands.
    inherited = path[0] == "defaults" and service.given["ports"][0] != "defaults"
    if port is None and not ports:
        mend = "give the port that backends serve on, such as port: 80, or take type: icmp"
        check_of = "its check of defaults" if inherited else "a check"
        message = f"{check_of} of type {check.type} needs 'port' beside ports: any; {mend}"
        yield Problem(service.path if inherited else path, message, on_key=True)
    elif port is None or not check.port or check.via == "direct" or not ports:
        return
    elif not any(check.port in own for own in ports):
        message = f"its check of defaults, to port {check.port}, {_PORT}" if inherited else _PORT
        yield Problem(service.path if inherited else port, message, on_key=True)
