"""Kernel settings under /proc/sys, of the network namespace that the calling thread is in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tula.model.errors import KernelError

_ROOT = Path("/proc/sys")


class Sysctls(Protocol):
    """Settings by their path, such as ``net/ipv4/conf/eth0.7/rp_filter``.

    By slashes, since the names of interfaces may hold dots.
    """

    def read(self, name: str) -> str | None:
        """The value without the line's end; None if there is no such setting.

        Raises KernelError.
        """

    def write(self, name: str, value: str) -> None:
        """Raises KernelError that names the setting."""


class KernelSysctls:
    """/proc/sys; its ``net`` shows the namespace of the thread that opens a file there."""

    def read(self, name: str) -> str | None:
        try:
            return (_ROOT / name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise KernelError(f"cannot read sysctl {name}: {error.strerror}") from error

    def write(self, name: str, value: str) -> None:
        try:
            # Not for writing a file of that name where there is no such setting.
            with (_ROOT / name).open("r+") as setting:
                setting.write(value)
        except OSError as error:
            # A container's /proc/sys is often mounted read-only.
            raise KernelError(f"cannot set sysctl {name} to {value}: {error.strerror}") from error
