"""Labs that outlive their process: what they created is recorded, and only that is removed.

``/run/tula-lab/PREFIX`` holds the hosts' state directories and two lists: ``namespaces`` (names
under ``/run/netns``) and ``processes`` (PID and start time, so that another program
that has got the PID since is left alone).
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from tula.lab.guard import LabError
from tula.lab.namespace import withdraw

KEPT = Path("/run/tula-lab")


def directory(prefix: str) -> Path:
    """The state directory of a named lab."""
    if not prefix or "/" in prefix or prefix.startswith("."):
        raise LabError(f"invalid name for a lab: {prefix!r}")
    return KEPT / prefix


def claim(prefix: str) -> Path:
    """Take a name for a new lab; LabError if another lab has it."""
    made = directory(prefix)
    try:
        KEPT.mkdir(mode=0o755, exist_ok=True)
        made.mkdir(mode=0o755)
    except FileExistsError:
        raise LabError(f"a lab named {prefix} already exists; remove it first") from None
    return made


def record_namespace(prefix: str, name: str) -> None:
    """Record a name under ``/run/netns``, before it is created."""
    with (directory(prefix) / "namespaces").open("a") as file:
        file.write(f"{name}\n")


def record_process(where: Path, pid: int) -> None:
    """Record a program that will outlive this process."""
    with (where / "processes").open("a") as file:
        file.write(f"{pid} {_started(pid)}\n")


def exists(prefix: str) -> bool:
    """Whether a lab of this name exists."""
    return directory(prefix).is_dir()


def remove_named(prefix: str) -> list[str]:
    """Remove a named lab: its programs, its names and its state; returns the names removed.

    Programs that others started inside (a shell by ``ip netns exec``) are left alone, and keep
    their namespace alive, without a name, until they end.
    """
    where = directory(prefix)
    for line in _lines(where / "processes"):
        pid, started = line.split()
        if _started(int(pid)) == started:
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)  # each is the leader of its own session
    removed = [name for name in _lines(where / "namespaces") if withdraw(name)]
    shutil.rmtree(where, ignore_errors=True)
    return removed


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _started(pid: int) -> str:
    """The process's start time in clock ticks since boot; empty when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[19]
