"""The source that is built: the last commit, with a version of its own."""

from __future__ import annotations

import re
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

VERSION_FILE = "src/tula/version.py"
_VERSION = re.compile(r'(?m)^__version__ = "([0-9.]+)"$')


@dataclass(frozen=True, slots=True)
class Commit:
    """``count``: how many commits it has in its history. ``epoch``: when, in seconds since 1970.

    ``tagged``: it is a release, tagged with its version.
    """

    name: str
    count: int
    epoch: int
    tags: tuple[str, ...] = ()


def version_of(text: str) -> str:
    """The version in ``version.py``. Raises ValueError if there is none."""
    found = _VERSION.search(text)
    if found is None:
        raise ValueError(f"{VERSION_FILE} names no version such as 1.2.3")
    return found[1]


def build_version(released: str, commit: Commit) -> str:
    """The version of what is built: ``0.1.0`` for the commit with the tag v0.1.0, else
    ``0.1.0+git512.1a2b3c4``.

    It is one for Debian and for Python (PEP 440, a local version), and it grows with every commit
    on the main branch, until the next release is greater.
    """
    if f"v{released}" in commit.tags:
        return released
    return f"{released}+git{commit.count}.{commit.name[:7]}"


def with_version(text: str, version: str) -> str:
    """``version.py`` with another version."""
    return _VERSION.sub(f'__version__ = "{version}"', text)


def git(root: Path, *arguments: str) -> bytes:
    """A git command's output. Raises CalledProcessError."""
    command = ["git", "-C", str(root), "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def last_commit(root: Path) -> Commit:
    """The commit that is checked out."""
    name, epoch = git(root, "log", "-1", "--format=%H %ct").decode().split()
    tags = git(root, "tag", "--points-at", "HEAD").decode().split()
    count = int(git(root, "rev-list", "--count", "HEAD"))
    return Commit(name, count, int(epoch), tuple(tags))


def uncommitted(root: Path) -> list[str]:
    """Files that differ from the last commit, and so are not built."""
    return git(root, "status", "--porcelain").decode().splitlines()


def check_out(root: Path, commit: Commit, folder: Path) -> str:
    """The commit's files in a folder, each with the commit's time; returns the build's version."""
    archive = git(root, "archive", "--format=tar", commit.name)
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    path = folder / VERSION_FILE
    text = path.read_text()
    version = build_version(version_of(text), commit)
    path.write_text(with_version(text, version))
    return version
