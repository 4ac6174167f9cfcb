"""Everything of a machine of Debian as text, to be compared before and after."""

from __future__ import annotations

import re

from support.booted import Machine
from support.machines import machine as kernel_of
from tula.lab import wait_until

_CHANGING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/root"),
    *("/var/lib/dpkg", "/var/lib/apt", "/var/log", "/var/cache"),
)
"""What is not on the disk, and what records that packages came and went."""
_AGING = (
    *("/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/ld.so.cache"),
    *("/var/lib/systemd", "/var/lib/private", "/etc/.pwd.lock", "/etc/.updated", "/var/.updated"),
)
"""Copies, caches and marks of others that any change of users or packages renews."""


def texts(machine: Machine) -> dict[str, object]:
    """Files with owner, mode and content; units; ``/run/tula``; the kernel and its sysctls."""
    wait_until(
        lambda: machine.run("systemctl", "list-jobs", "--no-legend").stdout == "",
        60,
        "systemd to have nothing to do",
    )
    return {
        "files": _files(machine),
        "units": machine.run("systemctl", "list-unit-files", "--no-legend", "--plain").stdout,
        "run": machine.sh("ls -d /run/tula /run/systemd/network 2>/dev/null || true"),
        "processes": machine.sh("ps -eo user=,args= | grep [t]ula || true"),
        **{name: _unplugged(text) for name, text in kernel_of(machine.host).items()},
    }


def _unplugged(text: object) -> object:
    """Without the other end of its cable, which is another one after a reboot."""
    return re.sub(r"@if\d+", "", text) if isinstance(text, str) else text


def _files(machine: Machine) -> str:
    pruned = " -o ".join(f"-path {path}" for path in (*_CHANGING, *_AGING))
    listing = machine.sh(
        f"find / -xdev \\( {pruned} \\) -prune -o ! -type d -printf '%p %y %m %U:%G %l\\n'"
        f" -o -type d -printf '%p %y %m %U:%G\\n' | sort"
    )
    contents = machine.sh(
        f"find / -xdev \\( {pruned} \\) -prune -o -type f -print0 | sort -z | xargs -0 sha1sum"
    )
    return listing + contents
