"""Machines of Debian in a lab: a host of the lab in which systemd is PID 1, with files of its own.

systemd-nspawn boots them; the root is debootstrap's (scripts/debian-machine), under an overlay, so
each test writes to its own. Mounts, processes and control groups go with the lab.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tula.lab import Host, Lab, LabError, Switch, wait_until
from tula.lab.host import quiet
from tula.lab.namespace import Namespace
from tula.lab.process import Completed, Process

RELEASES = ("bookworm", "trixie")
"""Debian 12 and 13."""

_ROOT = Path(__file__).parents[2]
_BOOT = Path(__file__).with_name("boot_machine.sh")
_OWN = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
_ENVIRONMENT = ("LANG=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = "etc/systemd/network/eth0.network"
_WANTED = {
    "multi-user.target.wants/systemd-networkd.service": "systemd-networkd.service",
    "network-online.target.wants/systemd-networkd-wait-online.service": (
        "systemd-networkd-wait-online.service"
    ),
}


def debian_machine(release: str) -> Path:
    """The files of a minimal Debian machine; made when they are not there yet."""
    made = subprocess.run(
        [_ROOT / "scripts/debian-machine", release], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(made.stdout.strip())


class Machine:
    """One machine: ``start`` boots it, ``run`` is a root shell's command on it.

    systemd-networkd gives ``eth0`` its addresses, as on a server that was installed so.
    """

    def __init__(
        self, lab: Lab, name: str, switch: Switch, addresses: Sequence[str], layers: Sequence[Path]
    ) -> None:
        """``layers`` are folders that make up its files, the uppermost first."""
        self.lab, self.name, self.switch = lab, name, switch
        self.host: Host = lab.host(name, switch)
        self.mac = self.host.mac()
        self.addresses = list(addresses)
        self.layers = list(layers)
        self.folder = self.host.directory
        self._group = f"{self.folder.parent.name}-{name}"
        self.host.owns(_Off(self))
        self.process: Process | None = None
        self.leader = 0
        """Its PID 1, as this machine numbers it."""
        self.write("etc/hostname", f"{name}\n")
        self.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        lines = "".join(f"Address={address}\n" for address in addresses)
        self.write(_NETWORK, f"[Match]\nName=eth0\n[Network]\nIPv6AcceptRA=no\n{lines}")
        for link, unit in _WANTED.items():
            path = self.upper / "etc/systemd/system" / link
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(f"/lib/systemd/system/{unit}")

    @property
    def upper(self) -> Path:
        """What it has written."""
        return self.folder / "upper"

    def write(self, path: str, text: str) -> None:
        """A file of the machine, while it is off."""
        target = self.upper / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    # Power

    def start(self) -> None:
        """Boots it, and waits until systemd has started all that it would."""
        with (self.folder / "console").open("a") as console:
            lower = ":".join(str(layer) for layer in self.layers)
            self.process = self.host.popen(
                ["unshare", *_OWN, "sh", _BOOT, self.name, lower, self.folder, self._group],
                stdout=console.fileno(),
                stderr=console.fileno(),
            )
        self.leader = wait_until(self._find_leader, 60, f"{self.name} to begin")
        wait_until(lambda: self._try("test", "-S", "/run/systemd/private"), 60, "its systemd")
        said = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=180)
        if said.stdout.strip() != "running":
            failed = self.run("systemctl", "--failed", "--no-legend", check=False).stdout
            raise LabError(f"{self.name} is {said.stdout.strip()}: {failed}\n{self.console}")

    def stop(self) -> None:
        """Shuts it down."""
        assert self.process is not None
        self.run("systemctl", "poweroff", check=False)
        self.process.wait(120)
        self._remove_control_group()

    def cut(self) -> None:
        """The power is gone: nothing ends in good order."""
        assert self.process is not None
        for child in _children(self.process.pid):  # PID 1 of all that runs there; it is reaped
            os.kill(child, signal.SIGKILL)
        self.process.wait(60)
        self._remove_control_group()

    def reboot(self, *, cut: bool = False) -> None:
        """Off and on: the network, and all that the kernel held of it, begins anew."""
        if cut:
            self.cut()
        else:
            self.stop()
        self.host.namespace.close()
        self.host.namespace = Namespace.create()
        self.host.owns(self.host.namespace)
        quiet(self.host.namespace)
        with suppress(LabError):  # the cable of the network card before, if it is still there
            self.switch.unplug(f"{self.name}.eth0")
        self.lab.connect(self.host, self.switch, mac=self.mac)
        self.start()

    # Inside

    def run(
        self,
        *command: str,
        check: bool = True,
        input: str | None = None,
        timeout: float | None = 120.0,
    ) -> Completed:
        """A command of root's on the machine."""
        return self.host.run(self._enter(command), check=check, input=input, timeout=timeout)

    def sh(self, script: str, *, check: bool = True, timeout: float | None = 120.0) -> str:
        """A shell's script; its output."""
        return self.run("sh", "-ec", script, check=check, timeout=timeout).stdout

    def equip(self) -> None:
        """Gives it what servers have and Tula needs: Debian 13's procps brings sysctls of its
        own."""
        programs = ("procps", "kmod", "iproute2", "nftables", "python3")
        self.run("apt-get", "install", "-y", *programs, timeout=600)
        self.run("systemctl", "restart", "systemd-sysctl")

    def install(self, *packages: Path, check: bool = True) -> Completed:
        """By apt, with what they need."""
        for package in packages:
            self.path(f"root/{package.name}").write_bytes(package.read_bytes())
        names = [f"/root/{package.name}" for package in packages]
        done = self.run(
            "apt-get", "install", "-y", "--allow-downgrades", *names, check=check, timeout=600
        )
        for name in names:
            self.path(name).unlink()
        return done

    def popen(self, *command: str, output: Path) -> Process:
        """Starts a command on the machine; the lab ends it."""
        with output.open("a") as log:
            return self.host.popen(self._enter(command), stdout=log.fileno(), stderr=log.fileno())

    def path(self, path: str) -> Path:
        """A file of the machine, while it runs. Links are not followed as the machine would."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", what, unit).stdout.strip()

    @property
    def console(self) -> str:
        """What the machine printed while it booted."""
        return (self.folder / "console").read_text(errors="replace")

    def _enter(self, command: Sequence[str]) -> list[str]:
        target = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd"]
        return [*target, "--", "env", "-i", _PATH, *_ENVIRONMENT, *command]

    def _try(self, *command: str) -> bool:
        return self.run(*command, check=False).returncode == 0

    def _find_leader(self) -> int:
        assert self.process is not None
        if self.process.poll() is not None:
            raise LabError(f"{self.name} did not boot: {self.console}")
        inner = {pid for pid in _descendants(self.process.pid) if _is_first_of_its_own(pid)}
        return inner.pop() if inner else 0

    def _remove_control_group(self) -> None:
        mounts = (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines())
        places = [Path(place) / self._group for place, kind in mounts if kind.startswith("cgroup")]

        def gone() -> bool:  # not before the last of its processes is
            for place in places:
                for group, _, _ in os.walk(place, topdown=False):
                    with suppress(OSError):
                        Path(group).rmdir()
            return not any(place.exists() for place in places)

        wait_until(gone, 60, f"the processes of {self.name} to end")


class _Off:
    """Ends a machine that still runs; the lab closes it, and removes its files."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def close(self) -> None:
        """Twice is harmless."""
        machine = self._machine
        if machine.process is not None and machine.process.poll() is None:
            machine.cut()


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)


def _is_first_of_its_own(pid: int) -> bool:
    """Whether it is PID 1 of a namespace within the one that the machine was started in."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                base = len(_own_levels())
                return len(numbers) == base + 2 and numbers[-1] == "1"
    return False


def _own_levels() -> list[str]:
    (found,) = (
        line.split()[1:]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("NSpid:")
    )
    return found
