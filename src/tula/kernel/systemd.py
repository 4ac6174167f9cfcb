"""What systemd makes of this process."""

from __future__ import annotations

from pathlib import Path

_SYSTEMD = Path("/run/systemd/system")
_CONTROL_GROUP = Path("/proc/self/cgroup")


def systemd_runs(place: Path = _SYSTEMD) -> bool:
    """Whether it is this machine's init; as sd_booted(3) has it."""
    return place.is_dir()


def own_service(groups: Path = _CONTROL_GROUP, place: Path = _SYSTEMD) -> str:
    """The service that this process is part of, and ends with; empty for none.

    By its control group, all of whose processes systemd kills when the service ends
    (systemd.kill(5)). The environment would not tell: shells inherit INVOCATION_ID.
    """
    if not systemd_runs(place):
        return ""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return ""
    names = {line.rpartition("/")[2] for line in lines}
    return next((name for name in sorted(names) if name.endswith(".service")), "")
