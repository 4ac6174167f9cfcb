"""The compiled parts of wheels: stripped, and which Debian packages they need.

dpkg-shlibdeps and dh_strip do that where the packages of the target's architecture are installed.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

_C_LIBRARY = re.compile(r"(libc|libm|libdl|libpthread|librt|ld-linux[-a-z0-9_]*)\.so\.[0-9]+")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_GLIBC = re.compile(r"\bGLIBC_2\.([0-9]+)")


def depends_of(readelf: Iterable[str]) -> list[str]:
    """The packages for the outputs of ``readelf --dynamic --version-info``.

    Raises ValueError for a library that manylinux does not allow for.
    """
    minor, packages = 0, set()
    for output in readelf:
        for library in _NEEDED.findall(output):
            if _C_LIBRARY.fullmatch(library):
                packages.add("libc6")
            elif library == "libgcc_s.so.1":
                packages.add("libgcc-s1")
            else:
                raise ValueError(f"no Debian package is known for {library}")
        minor = max([minor, *map(int, _GLIBC.findall(output))])
    return [f"libc6 (>= 2.{minor})" if name == "libc6" else name for name in sorted(packages)]


def read_elf(path: Path) -> str:
    """What readelf says about a file, for a machine of any kind."""
    command = ["readelf", "--wide", "--dynamic", "--version-info", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def strip(path: Path, machine: str) -> None:
    """Without symbols, which only a debugger reads: 5 of 34 MB."""
    command = [f"{machine}-linux-gnu-strip", "--strip-unneeded", str(path)]
    subprocess.run(command, check=True)
