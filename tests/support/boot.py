"""Does in a host what systemd and udev would do with a backend's files, by their own programs."""

from __future__ import annotations

import re
from pathlib import Path

from support.debian import Debian
from support.unit_file import UnitFile
from tula.lab import wait_until

_COMPLAINTS = re.compile(r"could not|ignoring|reject|fail|unknown|invalid", re.IGNORECASE)
_HARMLESS = ("Operation not supported", "Failed to manage link by its new hardware address")
"""What this kernel has not; and that two tunnels have one address, which is theirs for a MAC."""


class Boot:
    """One host's. The script was run in it: its ``systemctl`` does nothing but enable units."""

    def __init__(self, debian: Debian, log: Path) -> None:
        self.debian = debian
        self._log = log

    def start_units(self) -> None:
        """What is enabled, to its end."""
        wanted = self.debian.tree / "etc/systemd/system/multi-user.target.wants"
        for link in sorted(wanted.glob("tula-*")):
            unit = UnitFile.parse((wanted.parent / link.name).read_text())
            for line in unit.sections["Service"]["ExecStart"]:
                self.debian.run("sh", "-c", line.removeprefix("-"), check=not line.startswith("-"))

    def start_networkd(self, done: str = "lo: State changed: configuring -> configured") -> None:
        """And waits until it has configured the VIPs' device, or says something else."""
        self.debian.own("systemd-network", "/run/systemd/netif")
        log = ("env", "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=debug")
        self.debian.start(*log, "/lib/systemd/systemd-networkd", log=self._log)
        wait_until(lambda: done in self.said, 120)

    def add_devices(self) -> None:
        """For each, the sysctls that name it (udev's 99-systemd.rules)."""
        for name in self.debian.host.interfaces():
            if name != "lo":
                prefix = f"--prefix=/net/ipv4/conf/{name}"
                self.debian.run("/lib/systemd/systemd-sysctl", prefix)

    @property
    def said(self) -> str:
        """All that networkd wrote."""
        return self._log.read_text()

    @property
    def complaints(self) -> list[str]:
        """What it did not understand or could not do, but for what this kernel lacks."""
        lines = [line for line in self.said.splitlines() if "tula" in line]
        lines = [line for line in lines if not any(word in line for word in _HARMLESS)]
        return [line for line in lines if _COMPLAINTS.search(line)]
