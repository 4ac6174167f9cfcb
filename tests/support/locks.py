"""Who waits for the lock of a state directory."""

from __future__ import annotations

from pathlib import Path

from tula.lab import Host


def lock_of(host: Host) -> Path:
    """The lock of the host's state directory."""
    return Path(host.environment()["TULA_STATE_DIR"]) / "lock"


def waiting_for(lock: Path) -> int:
    """How many wait for the lock: /proc/locks shows them by an arrow (proc_locks(5))."""
    inode = f":{lock.stat().st_ino} "
    return sum(
        "->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines()
    )
