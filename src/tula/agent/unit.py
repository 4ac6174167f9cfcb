"""The systemd unit that joins again at boot, and puts back what others take from then on."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from tula.kernel.directory import Directory
from tula.model.errors import KernelError

NAME = "tula-backend.service"
_UNITS = Path("/etc/systemd/system")
_DEFAULT_STATE = Path("/var/lib/tula")


def own_namespace() -> bool:
    """Whether this process runs in the machine's own network namespace, under systemd."""
    try:
        same = Path("/proc/thread-self/ns/net").readlink() == Path("/proc/1/ns/net").readlink()
    except OSError:
        return False
    return same and Path("/run/systemd/system").is_dir()


class Unit:
    """The unit's file, enabled in systemd. Methods raise KernelError."""

    def __init__(self, state: Path, units: Path = _UNITS) -> None:
        self._state = state
        self.path = units / NAME

    def text(self) -> str:
        """Before the network, so that no VIP is announced; after what flushes nftables."""
        join = [sys.executable, "-m", "tula", "backend", "join", "--no-persist"]
        if self._state != _DEFAULT_STATE:
            join += ["--state-dir", str(self._state)]
        # ProtectSystem=full and not strict: /run/systemd/network may have to be made. CHOWN and
        # DAC_OVERRIDE for a state directory that belongs to the daemon's user, SYS_MODULE for
        # tunnels. Without SYS_PTRACE it cannot tell whose namespace it is in: --no-persist.
        return f"""\
# Written by "tula backend join", removed by "tula backend leave".
[Unit]
Description=Tula: VIPs and tunnels of a backend
# Where Tula was removed and the machine never left, there is nothing to run.
ConditionPathExists={str(sys.executable).replace("%", "%%")}
After=nftables.service systemd-sysctl.service systemd-modules-load.service
Before=network-pre.target
Wants=network-pre.target
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
# Ready when all is in place. To stop it changes nothing; only "tula backend leave" does.
Type=notify
NotifyAccess=main
ExecStart={shlex.join([*join, "--watch"])}
ExecReload={shlex.join(join)}
Restart=on-failure
RestartSec=2
# Wrong input, which only a join with another configuration ends.
RestartPreventExitStatus=2
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_MODULE CAP_CHOWN CAP_DAC_OVERRIDE
NoNewPrivileges=yes
ProtectSystem=full
ReadWritePaths={_quoted(self._state)}
ProtectHome=read-only
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @module
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

    def is_there(self) -> bool:
        """Whether the file exists with the right content."""
        try:
            return self.path.read_text() == self.text()
        except OSError:
            return False

    def ensure(self) -> None:
        """Write and enable it."""
        there = self.is_there()
        if not there:
            try:
                Directory(self.path.parent).write(NAME, self.text().encode())
            except OSError as error:
                raise KernelError(f"{self.path}: {error.strerror}") from error
        _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", NAME)
        # It finds everything done once this process has ended. Where an older unit is active, which
        # only joined, the new one begins to watch.
        _systemctl("start" if there else "restart", "--no-block", NAME)

    def remove(self) -> None:
        """Disable and remove it."""
        if not self.path.exists():
            return
        _systemctl("disable", "--now", "--quiet", NAME)
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error
        _systemctl("daemon-reload")


def _quoted(path: Path) -> str:
    """A path that need not exist, for systemd: percent signs are doubled, spaces need quotes."""
    text = "-" + str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _systemctl(*arguments: str) -> None:
    command = ["systemctl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise KernelError("systemctl is missing; join with --no-persist") from error
    if done.returncode != 0:
        raise KernelError(f"{shlex.join(command)}: {done.stderr.strip()}")
