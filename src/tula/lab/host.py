"""A host of the lab: a network namespace with interfaces, addresses and programs."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import signal
import socket as socketlib
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from pyroute2 import IPRoute

from tula.lab.guard import LabError, require_private_namespace
from tula.lab.interfaces import Interfaces
from tula.lab.namespace import Namespace
from tula.lab.process import Completed, Process, Spawner, processes_in
from tula.lab.wait import wait_until

_SIOCETHTOOL = 0x8946
_OFFLOADS = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""By ethtool's commands that set them."""


class Closable(Protocol):
    """What a host can close when the lab ends."""

    def close(self) -> None:
        """Close it; may be called twice."""


ClosableT = TypeVar("ClosableT", bound=Closable)


class Host(Interfaces):
    """One machine of the lab, created by ``Lab.host``."""

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        spawner: Spawner,
        directory: Path,
        stack: ExitStack,
    ) -> None:
        """``namespace`` must not be the machine's own (see ``Namespace``)."""
        super().__init__(name, namespace)
        self.directory = directory
        self._spawner = spawner
        self._stack = stack

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    def owns(self, thing: ClosableT) -> ClosableT:
        """Close this, such as a server, when the lab ends."""
        self._stack.callback(thing.close)
        return thing

    # Inside

    def socket(self, family: int, kind: int, protocol: int = 0) -> socketlib.socket:
        """A socket of this host, whichever thread uses it."""
        with self.enter():
            return socketlib.socket(family, kind, protocol)

    def read_sysctl(self, name: str) -> str:
        """For example ``net.ipv4.ip_forward``; slashes work too, for names with dots."""
        with self.enter():
            return _sysctl(name).read_text().strip()

    def write_sysctl(self, name: str, value: str | int) -> None:
        """Set a sysctl of this host, as ``sysctl -w`` does."""
        with self.enter():
            require_private_namespace()
            try:
                _sysctl(name).write_text(str(value))
            except OSError as error:
                raise LabError(f"{self.name}: {name}={value}: {error.strerror}") from None

    def forwarding(self, on: bool = True) -> None:
        """Turn IPv4 and IPv6 forwarding on or off."""
        self.write_sysctl("net.ipv4.ip_forward", int(on))
        self.write_sysctl("net.ipv6.conf.all.forwarding", int(on))

    # Programs

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Completed:
        """Run a program to its end; with ``check``, a failure is a ``LabError`` with its output."""
        return self._spawner.run(
            self.namespace,
            [str(argument) for argument in arguments],
            check=check,
            input=input,
            env=env,
            timeout=timeout,
        )

    def popen(
        self,
        arguments: Sequence[str | Path],
        *,
        stdout: int | None = None,
        stderr: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program; the lab ends it."""
        return self._spawner.popen(
            self.namespace,
            [str(argument) for argument in arguments],
            stdout=stdout,
            stderr=stderr,
            env=env,
        )

    def tula(
        self,
        *arguments: str | Path,
        check: bool = True,
        input: str | None = None,
        timeout: float | None = 60.0,
    ) -> Completed:
        """Run ``tula ARGUMENTS`` in the host, with state and sockets of the host's own."""
        self._require_own()
        command = [sys.executable, "-m", "tula", *arguments]
        return self.run(command, check=check, input=input, env=self.environment(), timeout=timeout)

    def start_tula(
        self, *arguments: str | Path, stdout: int | None = None, stderr: int | None = None
    ) -> Process:
        """Start ``tula ARGUMENTS``, such as the daemon; the lab ends it."""
        self._require_own()
        command = [sys.executable, "-m", "tula", *arguments]
        return self.popen(command, stdout=stdout, stderr=stderr, env=self.environment())

    def processes(self, name: str = "") -> list[int]:
        """The processes that run here, or those of this program (``keepalived``)."""
        here = [pid for pid in processes_in({self.namespace.id}) if pid != os.getpid()]
        return [pid for pid in here if not name or _program(pid) == name]

    def kill(self, name: str = "") -> int:
        """``kill -9``, at once, of all processes or those of this program; how many there were."""
        found = self.processes(name)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    @property
    def is_on(self) -> bool:
        """False between ``power_off`` and ``Lab.power_on``."""
        return self.namespace.is_open

    def power_off(self) -> None:
        """Cut the power: no process ends in order, and links are down at the other ends.

        What is below /run is gone, state on disk is not. ``Lab.power_on`` boots the machine.
        """
        wait_until(lambda: not self.kill(), what=f"an end of the processes of {self.name}")
        self.unplug()
        self.namespace.close()
        shutil.rmtree(self.directory / "run", ignore_errors=True)

    def boot(self, namespace: Namespace) -> None:
        """The same machine in a namespace without a past: interfaces, addresses, routes."""
        self.namespace = namespace
        quiet(namespace)
        self.configure()

    def environment(self) -> dict[str, str]:
        """This process's environment, with the host's own TULA_STATE_DIR and TULA_RUN_DIR."""
        directories = {
            "TULA_STATE_DIR": self.directory / "state",
            "TULA_RUN_DIR": self.directory / "run",
        }
        for place in directories.values():
            place.mkdir(parents=True, exist_ok=True)
        return {**os.environ, **{name: str(place) for name, place in directories.items()}}

    def _require_own(self) -> None:
        with self.enter():
            require_private_namespace()


def set_offload(host: Host, ifname: str = "eth0", **features: bool) -> None:
    """Switch ``rx`` and ``tx`` checksums, ``sg``, ``tso``, ``gso`` or ``gro``, as ethtool -K does.

    A veth hands 64-kB aggregates over as they are. For frames of wire size at the receiver, the
    *sender* needs ``tso=False, gso=False``; for a receiver that aggregates as a NIC does, that
    and ``gro=True`` at the receiver.
    """
    with host.socket(socketlib.AF_INET, socketlib.SOCK_DGRAM) as control:
        for feature, on in features.items():
            if feature not in _OFFLOADS:
                raise LabError(f"no offload {feature}; there are: {', '.join(_OFFLOADS)}")
            value = array.array("B", struct.pack("II", _OFFLOADS[feature], int(on)))
            request = struct.pack("16sP16x", ifname.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, request)
            except OSError as error:
                raise LabError(f"{host.name} {ifname} {feature}: {error.strerror}") from None


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""  # ended meanwhile


def quiet(namespace: Namespace) -> None:
    """Bring loopback up; no router solicitations, no duplicate address detection."""
    with namespace.enter():
        for scope in ("all", "default"):
            for name in ("accept_ra", "accept_dad", "dad_transmits", "router_solicitations"):
                _sysctl(f"net/ipv6/conf/{scope}/{name}").write_text("0")
        with IPRoute() as socket:
            socket.link("set", index=1, state="up")


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / (name if "/" in name else name.replace(".", "/"))
