"""Labs that outlive their process: what was made is written down, and only that is removed.

``/run/tula-lab/PREFIX`` holds the hosts' state directories and two lists: ``namespaces`` (names
under ``/run/netns``) and ``processes`` (number and start time, so that a number the kernel has
given to another program since is left alone).
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
    """The state of one named lab."""
    if not prefix or "/" in prefix or prefix.startswith("."):
        raise LabError(f"not a name for a lab: {prefix!r}")
    return KEPT / prefix


def claim(prefix: str) -> Path:
    """Take a name for a new lab; refused while another has it."""
    made = directory(prefix)
    try:
        KEPT.mkdir(mode=0o755, exist_ok=True)
        made.mkdir(mode=0o755)
    except FileExistsError:
        raise LabError(f"there is a lab named {prefix} already; remove it first") from None
    return made


def record_namespace(prefix: str, name: str) -> None:
    """Write down a name under ``/run/netns``, before it is made."""
    with (directory(prefix) / "namespaces").open("a") as file:
        file.write(f"{name}\n")


def record_process(where: Path, pid: int) -> None:
    """Write down a program that is to outlive this process."""
    with (where / "processes").open("a") as file:
        file.write(f"{pid} {_started(pid)}\n")


def exists(prefix: str) -> bool:
    """Whether a lab of that name is there."""
    return directory(prefix).is_dir()


def remove_named(prefix: str) -> list[str]:
    """Remove a named lab: its programs, its names and its state; returns the names removed.

    What someone else runs inside (a shell by ``ip netns exec``) is left alone, and keeps its
    namespace alive, without a name, until it ends.
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
