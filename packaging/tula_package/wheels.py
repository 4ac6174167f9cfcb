"""Fetches and builds Python packages, for other machines and versions of Python too."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tula_package.targets import Target


def build_distributions(source: Path, folder: Path, epoch: int) -> tuple[Path, Path]:
    """The wheel and the source distribution of Tula; twice the same bytes for the same source."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"building the wheel failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    sdist.write_bytes(repack(sdist.read_bytes(), epoch))
    return wheel, sdist


def repack(archive: bytes, epoch: int) -> bytes:
    """A .tar.gz without what differs from build to build: times, owners, order."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as before,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for member in sorted(before.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid = epoch, 0, 0
            member.uname = member.gname = ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            after.addfile(member, before.extractfile(member) if member.isfile() else None)
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def install_wheels(wheel: Path, target: Target, constraints: Path, folder: Path) -> None:
    """Tula's wheel and all that it needs, unpacked in a folder as for that target; no compiler, no
    program of the target runs."""
    platforms = [word for name in target.platforms() for word in ("--platform", name)]
    command = [
        *(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
        *("--no-compile", "--only-binary=:all:", "--target", str(folder)),
        *("--implementation", "cp", "--python-version", "{}.{}".format(*target.release.python)),
        *platforms,
        *("--constraint", str(constraints), str(wheel)),
    ]
    subprocess.run(command, check=True)
