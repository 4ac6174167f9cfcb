"""Programs with mounts of their own, which go with them."""

from __future__ import annotations

from pathlib import Path

# In a bare chroot "/" is no mount point, and there is no way of telling it to be private.
_ROOT_IS_MOUNTED = any(
    line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()
)
OWN_MOUNTS = ("unshare", "-m", *(() if _ROOT_IS_MOUNTED else ("--propagation", "unchanged")))


def after_mounts(script: str) -> tuple[str, ...]:
    """What stands before a command that runs after the script's mounts; its process is the same."""
    return (*OWN_MOUNTS, "sh", "-ec", f'{script}\nexec "$@"', "sh")
