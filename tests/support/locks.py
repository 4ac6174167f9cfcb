"""Who waits for the lock of a state directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tula.lab import Host


def lock_of(host: Host) -> Path:
    """The lock of the host's state directory."""
    return Path(host.environment()["TULA_STATE_DIR"]) / "lock"


def waiting_for(lock: Path) -> int:
    """How many have opened the lock and do not hold it (proc_pid_fdinfo(5)); 0 without one."""
    if not lock.exists():
        return 0
    wanted, waiting = lock.stat(), 0
    for opened in _open_files():
        with suppress(OSError):  # it has ended, or closed it
            found = opened.stat()
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                info = opened.parents[1] / "fdinfo" / opened.name
                waiting += "\nlock:" not in info.read_text()
    return waiting


def _open_files() -> Iterator[Path]:
    """The open files of all processes; of one that ends meanwhile, none."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield from list((process / "fd").iterdir())
