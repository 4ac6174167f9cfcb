"""What packages are built for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PREFIX = "usr/lib/tula"
"""The virtual environment's final path."""


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release: its number, its Python's version, its glibc's minor version."""

    number: int
    python: tuple[int, int]
    glibc: int

    @property
    def python_name(self) -> str:
        return f"python{self.python[0]}.{self.python[1]}"

    @property
    def site_packages(self) -> str:
        return f"{PREFIX}/lib/{self.python_name}/site-packages"

    @property
    def python_depends(self) -> str:
        """The one version of Python that the packages' compiled parts are for."""
        major, minor = self.python
        return f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})"

    @property
    def sysusers_depends(self) -> str:
        """What has systemd-sysusers; in a container without systemd, the standalone program."""
        if self.number < 13:
            return "systemd | systemd-standalone-sysusers | systemd-sysusers"
        return "default-systemd-sysusers | systemd-sysusers"


@dataclass(frozen=True, slots=True)
class Target:
    """A release on a kind of machine, by its names in Debian and in wheels."""

    release: Release
    architecture: str
    machine: str

    def platforms(self) -> Iterator[str]:
        """The wheels' platforms that run there (PEP 600), the newest first."""
        for minor in range(self.release.glibc, 4, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
        for alias in ("manylinux2014", "manylinux2010", "manylinux1"):
            yield f"{alias}_{self.machine}"


RELEASES = (Release(12, (3, 11), 36), Release(13, (3, 13), 41))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
TARGETS = tuple(
    Target(release, architecture, machine)
    for release in RELEASES
    for architecture, machine in MACHINES.items()
)
