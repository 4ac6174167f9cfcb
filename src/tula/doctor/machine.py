"""Figures of the machine that are no part of Tula: tables of the kernel, nft's version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tula.kernel.sysctls import Sysctls

_STATISTICS = {4: "arp_cache", 6: "ndisc_cache"}
_FAMILIES = {4: "ipv4", 6: "ipv6"}


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a table of the kernel's is; ``soft`` is where it starts to drop old entries."""

    used: int
    most: int
    soft: int = 0


def read_neighbours(sysctls: Sysctls) -> dict[int, Usage]:
    """The neighbour tables by IP version; they are the whole machine's, and not shown in network
    namespaces other than its first (neighbour.c)."""
    found: dict[int, Usage] = {}
    for version, family in _FAMILIES.items():
        base = f"net/{family}/neigh/default/gc_thresh"
        soft, most = (_number(sysctls.read(f"{base}{n}")) for n in (2, 3))
        used = _entries(Path("/proc/net/stat") / _STATISTICS[version])
        if most and used is not None:
            found[version] = Usage(used, most, soft)
    return found


def read_conntrack(sysctls: Sysctls) -> Usage | None:
    """Connection tracking's table, where there is one."""
    count, most = (sysctls.read(f"net/netfilter/nf_conntrack_{n}") for n in ("count", "max"))
    return Usage(_number(count), _number(most)) if count and most else None


def nft_version() -> tuple[int, ...] | None:
    """Of the program that writes the rules; None when there is none."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = shutil.which("nft", path=path)
    if program is None:
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return parse_version(said.stdout)


def parse_version(text: str) -> tuple[int, ...] | None:
    """From ``nftables v1.0.6 (Lester Gooch #5)``."""
    found = re.search(r"v(\d+(?:\.\d+)*)", text)
    return tuple(map(int, found[1].split("."))) if found else None


def _entries(path: Path) -> int | None:
    """The first column of the first row: entries of the table, hexadecimal."""
    try:
        return int(path.read_text().splitlines()[1].split()[0], 16)
    except (OSError, IndexError, ValueError):
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
