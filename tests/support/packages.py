"""Tula's packages, as ``make package`` built them, and what they need from Debian's registry."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_DIST = Path(os.environ.get("TULA_DIST", _ROOT / "dist"))
_NUMBERS = {"bookworm": 12, "trixie": 13}


def package_of(release: str, name: str = "tula") -> Path:
    """The newest one for this release and machine."""
    number, architecture = _NUMBERS[release], _run("dpkg", "--print-architecture").strip()
    found = [
        path
        for kind in (architecture, "all")
        for path in _DIST.glob(f"{name}_*~deb{number}_{kind}.deb")
    ]
    if not found:
        pytest.fail(f"no package {name} for Debian {number} in {_DIST}: make package", False)
    return max(found, key=lambda path: path.stat().st_mtime)


def version_of(package: Path) -> str:
    """Its version in Debian's words."""
    return _run("dpkg-deb", "--field", package, "Version").strip()


def changed(
    package: Path, folder: Path, version: str, change: Callable[[Path], None] = lambda _: None
) -> Path:
    """The package again, with another version; ``change`` is given its unpacked files."""
    tree = folder / f"tree-{version}"
    _run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    change(tree)
    made = folder / f"tula_{version}.deb"
    _run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, made)
    shutil.rmtree(tree)
    return made


@cache
def registry_layer(machine: Path, *packages: Path | str) -> Path:
    """What apt on such a machine has downloaded already when it is asked for these packages: a
    folder to lay above the machine's files. Only this uses the network."""
    layer = machine.with_name(f"{machine.name}.registry")
    lists, archives = layer / "var/lib/apt/lists", layer / "var/cache/apt/archives"
    for folder in (lists, archives):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::Etc": machine / "etc/apt",
        "Dir::State::status": machine / "var/lib/dpkg/status",
        "Dir::State::lists": lists,
        "Dir::State::extended_states": layer / "extended_states",
        "Dir::Cache": layer / "cache",
        "Dir::Cache::archives": archives,
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", "-y", *(f"-o{name}={value}" for name, value in options.items())]
    fetch = [*apt, "--download-only", "install", *map(str, packages)]
    with (machine.with_name(f"{machine.name}.lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if subprocess.run(fetch, capture_output=True).returncode != 0:
            _run(*apt, "update")
            _run(*fetch)
    return layer


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: {done.stderr}", False)
    return done.stdout
