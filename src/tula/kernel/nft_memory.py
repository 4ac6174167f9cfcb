"""The numbers of the nftables data path as JSON, and back.

Times are written in seconds since the epoch, where earlier versions look for them, and again under
"boot", in seconds of the boot clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tula.dataplane.nft.ids import Ids, Left
from tula.kernel.clock import Clock, to_boot, to_wall


def dump_ids(ids: Ids, clock: Clock) -> dict[str, Any]:
    """For JSON."""
    return {
        "services": dict(ids.services),
        "backends": dict(ids.backends),
        "tables": dict(ids.tables),
        "turns": dict(ids.wrr),  # a name in files of 0.1.0
        "left_services": _dump_left(ids.left_services, clock),
        "left_backends": _dump_left(ids.left_backends, clock),
        "boot": {
            "id": clock.boot_id(),
            "left_services": {name: at for name, (_, at) in ids.left_services.items()},
            "left_backends": {name: at for name, (_, at) in ids.left_backends.items()},
        },
        "next_service": ids.next_service,
        "next_backend": ids.next_backend,
    }


def recall_ids(data: Mapping[str, Any], clock: Clock) -> Ids:
    """What ``dump_ids`` gave; none if something is missing or damaged.

    The kernel knows the numbers in use as well, so that a damaged file stops nothing.
    """
    try:
        return Ids(
            services=_numbers(data, "services"),
            backends=_numbers(data, "backends"),
            tables=_numbers(data, "tables"),
            wrr=_numbers(data, "turns"),
            left_services=_recall_left(data, "left_services", clock),
            left_backends=_recall_left(data, "left_backends", clock),
            next_service=int(data["next_service"]),
            next_backend=int(data["next_backend"]),
        )
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):
        return Ids()


def _dump_left(entries: Left, clock: Clock) -> dict[str, list[float]]:
    # Whole seconds: the clocks drift apart, and what did not change is not written again.
    return {name: [number, round(to_wall(clock, at))] for name, (number, at) in entries.items()}


def _recall_left(data: Mapping[str, Any], name: str, clock: Clock) -> Left:
    boot = data.get("boot", {})
    kept, boot_id = boot.get(name, {}), str(boot.get("id", ""))
    found: dict[str, tuple[int, float]] = {}
    for key, (number, wall) in data.get(name, {}).items():
        at = None if kept.get(key) is None else float(kept[key])
        found[str(key)] = (int(number), to_boot(clock, float(wall), at, boot_id))
    return found


def _numbers(data: Mapping[str, Any], name: str) -> dict[str, int]:
    return {str(key): int(value) for key, value in data.get(name, {}).items()}
