"""Debian's packages, unpacked in the cache: nothing of them is ever installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vm.errors import VmError

_META = "linux-image-amd64"
"""Depends on the newest stock kernel's package, such as linux-image-6.1.0-56-amd64."""


class Kernel(NamedTuple):
    """A stock kernel, ready to boot."""

    image: Path
    """Its file; vng finds ``lib/modules`` two folders up."""
    release: str


class Cache:
    """Unpacked packages below a folder, each under its name and version."""

    def __init__(self, folder: Path, scripts: Path) -> None:
        """Describe it; the packages come when they are asked for."""
        self._folder = folder
        self._as_root = scripts / "as-root"
        self._updated = False

    def kernel(self) -> Kernel:
        """The newest stock kernel of this Debian, with its modules."""
        name = self._depends(_META)
        release = name.removeprefix("linux-image-")
        root = self._unpacked(name, release)
        return Kernel(root / "boot" / f"vmlinuz-{release}", release)

    def busybox(self) -> Path:
        """A static busybox, which vng's first file system needs."""
        root = self._unpacked("busybox-static")
        return next(
            path for path in (root / "bin/busybox", root / "usr/bin/busybox") if path.is_file()
        )

    def _depends(self, meta: str) -> str:
        found = re.search(r"linux-image-[0-9]\S*-amd64", self._field(meta, "Depends"))
        if found is None:
            raise VmError(f"the package {meta} names no kernel; is this a Debian?")
        return found[0]

    def _unpacked(self, name: str, release: str | None = None) -> Path:
        """The package's files, downloaded unless the cache has that version."""
        target = self._folder / f"{name}_{self._field(name, 'Version').replace(':', '%3a')}"
        if target.is_dir():
            return target
        for older in self._folder.glob("linux-image-*_*" if release else f"{name}_*"):
            shutil.rmtree(older)
        print(f"Fetching {name} …", flush=True)
        # In a folder of its own until it is whole: a run that is killed leaves no half package.
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="unpacking-") as made:
            new = Path(made) / "files"
            self._download(name, Path(made))
            package = next(Path(made).glob("*.deb"))
            _run(["dpkg", "-x", str(package), str(new)])
            if release is not None:
                _run(["depmod", "-b", str(new), release])
            new.rename(target)
        return target

    def _field(self, name: str, field: str) -> str:
        """A field of the version that apt would install."""
        command = ["apt-cache", "show", "--no-all-versions", name]
        shown = subprocess.run(command, capture_output=True, text=True)
        found = re.search(rf"^{field}: (.*)$", shown.stdout, re.MULTILINE)
        if found is not None:
            return found[1]
        self._update(f"apt knows no package {name}: {shown.stderr.strip()}")
        return self._field(name, field)

    def _download(self, name: str, folder: Path) -> None:
        # No other user: apt's own could not write below the checkout.
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode != 0:
            self._update(f"cannot download {name}: {done.stderr.strip()}")
            self._download(name, folder)

    def _update(self, reason: str) -> None:
        """Fresh package lists, once: those of a new machine are empty or name what is gone."""
        if self._updated:
            raise VmError(reason)
        self._updated = True
        _run([str(self._as_root), "apt-get", "update", "-qq"])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise VmError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
