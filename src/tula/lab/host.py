"""A host of the lab: a network namespace with interfaces, addresses and programs."""

from __future__ import annotations

import os
import socket as socketlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from pyroute2 import IPRoute

from tula.lab.guard import LabError, require_private_namespace
from tula.lab.interfaces import Interfaces
from tula.lab.namespace import Namespace
from tula.lab.process import Completed, Process, Spawner


class Closable(Protocol):
    """What a host can end with itself."""

    def close(self) -> None:
        """Twice is harmless."""


ClosableT = TypeVar("ClosableT", bound=Closable)


class Host(Interfaces):
    """One machine of the lab. ``Lab.host`` makes it."""

    def __init__(
        self,
        name: str,
        namespace: Namespace,
        spawner: Spawner,
        directory: Path,
        stack: ExitStack,
    ) -> None:
        """Describe it; refused when ``namespace`` is the machine's own (see ``Namespace``)."""
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
        """A socket that lives in the host, whichever thread uses it."""
        with self.enter():
            return socketlib.socket(family, kind, protocol)

    def read_sysctl(self, name: str) -> str:
        """For example ``net.ipv4.ip_forward``; a name with dots in it may be given with slashes."""
        with self.enter():
            return _sysctl(name).read_text().strip()

    def write_sysctl(self, name: str, value: str | int) -> None:
        """Set one, as ``sysctl -w`` does, in this host only."""
        with self.enter():
            require_private_namespace()
            try:
                _sysctl(name).write_text(str(value))
            except OSError as error:
                raise LabError(f"{self.name}: {name}={value}: {error.strerror}") from None

    def forwarding(self, on: bool = True) -> None:
        """Make it a router, for IPv4 and IPv6, or stop it being one."""
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
        """Run a program to its end; ``check`` raises ``LabError`` with what it said."""
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
        """Start a program that the lab ends."""
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

    def environment(self) -> dict[str, str]:
        """This process's environment, with the host's own TULA_STATE_DIR and TULA_RUN_DIR."""
        places = {
            "TULA_STATE_DIR": self.directory / "state",
            "TULA_RUN_DIR": self.directory / "run",
        }
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        return {**os.environ, **{name: str(place) for name, place in places.items()}}

    def _require_own(self) -> None:
        with self.enter():
            require_private_namespace()


def quiet(namespace: Namespace) -> None:
    """Loopback up; no router solicitations, no duplicate address detection: a quiet network."""
    with namespace.enter():
        for scope in ("all", "default"):
            for name in ("accept_ra", "accept_dad", "dad_transmits", "router_solicitations"):
                _sysctl(f"net/ipv6/conf/{scope}/{name}").write_text("0")
        with IPRoute() as socket:
            socket.link("set", index=1, state="up")


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / (name if "/" in name else name.replace(".", "/"))
