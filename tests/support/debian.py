"""Programs of Debian's packages in hosts of the lab, unmodified and not installed.

``make test`` unpacks them (scripts/debian-root). Each host has an /etc and a /var of its own, and
programs see them as the root's: what they write goes with the test.
"""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from support.own_mounts import OWN_MOUNTS
from tula.lab import Host
from tula.lab.process import Completed, Process

_ROOT = Path(__file__).parents[2] / ".packages" / "root"
_EMPTY = ("dev", "proc", "run", "sys", "tmp", "usr", "root")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/root"}

_ENTER = Path(__file__).with_name("enter_debian.sh")


class _Killer:
    """Ends a program with all that it started: what waits for it here heeds no other signal."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def close(self) -> None:
        """Twice is harmless."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # the lab gives each a session
        self._process.wait()


class Debian:
    """One host with the packages' programs and files."""

    def __init__(self, host: Host, folder: Path) -> None:
        """``folder`` is the test's own; the host's tree is made in it."""
        if not _ROOT.is_dir():
            pytest.fail(
                f"no {_ROOT}: make .packages unpacks Debian's packages there", pytrace=False
            )
        self.host = host
        self.tree = folder / host.name
        for name in ("etc", "var"):
            shutil.copytree(_ROOT / name, self.tree / name, symlinks=True)
        for link in ("bin", "sbin", "lib", "lib64"):
            (self.tree / link).symlink_to(f"usr/{link}")
        for name in _EMPTY:
            (self.tree / name).mkdir()
        (self.tree / "tmp").chmod(0o1777)
        self.tree.chmod(0o755)
        self.run("ldconfig")  # Python's programs find libraries by its cache alone

    def run(self, *command: str, check: bool = True, input: str | None = None) -> Completed:
        """A program to its end."""
        return self.host.run(self._enter(command), check=check, input=input, env=_ENVIRONMENT)

    def start(self, *command: str, log: Path, sees_all: bool = False) -> Process:
        """A program that goes on; the lab ends it, and all that it starts with it.

        ``sees_all``: it can tell which process of the machine speaks to it.
        """
        with log.open("a") as output:
            process = self.host.popen(
                self._enter(command, own_processes=not sees_all),
                stdout=output.fileno(),
                stderr=output.fileno(),
                env=_ENVIRONMENT,
            )
        self.host.owns(_Killer(process))
        return process

    def own(self, user: str, *folders: str) -> None:
        """Makes folders that belong to a user, as a package's script or its unit would."""
        self.run("install", "-d", "-o", user, "-g", user, *folders)

    def _enter(self, command: tuple[str, ...], *, own_processes: bool = True) -> list[str]:
        # With a number space of their own, so that none outlives the one that was started.
        own = ("--pid", "--fork", "--kill-child") if own_processes else ()
        return [*OWN_MOUNTS, *own, "sh", str(_ENTER), str(self.tree), str(_ROOT), *command]
