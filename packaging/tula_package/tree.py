"""The files of a package, before any of them is written."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_SCRIPT = 0o755
_FILE = 0o644


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. ``mode`` are its permissions."""

    content: bytes
    mode: int = _FILE


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(slots=True)
class Tree:
    """Paths relative to the root of the machine, without a leading slash."""

    entries: dict[str, File | Link] = field(default_factory=dict)

    def add(self, path: str, content: bytes | str, mode: int = _FILE) -> None:
        """Raises ValueError for a path that is there already."""
        data = content.encode() if isinstance(content, str) else content
        self._put(path, File(data, mode))

    def link(self, path: str, target: str) -> None:
        """Raises ValueError for a path that is there already."""
        self._put(path, Link(target))

    def add_gzipped(self, path: str, content: bytes | str) -> None:
        """Policy 12.1, 12.3: manual pages and changelogs are compressed, without a name or time."""
        data = content.encode() if isinstance(content, str) else content
        self._put(path, File(gzip.compress(data, 9, mtime=0)))

    def _put(self, path: str, entry: File | Link) -> None:
        if path in self.entries:
            raise ValueError(f"{path} is in the package twice")
        self.entries[path] = entry

    def __iter__(self) -> Iterator[tuple[str, File | Link]]:
        return iter(sorted(self.entries.items()))

    def files(self) -> Iterator[tuple[str, File]]:
        """The regular files by path."""
        for path, entry in self:
            if isinstance(entry, File):
                yield path, entry

    def directories(self) -> list[str]:
        """Every directory that the paths need, parents first."""
        return sorted(
            {str(parent) for path in self.entries for parent in Path(path).parents} - {"."}
        )

    def md5sums(self, without: frozenset[str] = frozenset()) -> str:
        """As ``DEBIAN/md5sums`` has it."""
        return "".join(
            f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {path}\n"
            for path, file in self.files()
            if path not in without
        )

    def installed_size(self) -> int:
        """``Installed-Size`` in KiB (policy 5.6.20): files rounded up, a directory or link 1."""
        files = sum(-(-len(file.content) // 1024) for _, file in self.files())
        others = len(self.directories()) + sum(isinstance(e, Link) for _, e in self)
        return files + others

    def write(self, root: Path, epoch: int) -> None:
        """Below ``root``, everything with the time ``epoch``, in seconds since 1970."""
        for directory in self.directories():
            path = root / directory
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(_SCRIPT)
        for name, entry in self:
            path = root / name
            if isinstance(entry, Link):
                path.symlink_to(entry.target)
            else:
                path.write_bytes(entry.content)
                path.chmod(entry.mode)
        for path in [*root.rglob("*"), root]:
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def read_tree(folder: Path, below: str, skip: re.Pattern[str]) -> Tree:
    """The files of a folder as they will be installed below a path, but those whose path within the
    folder ``skip`` matches. Raises ValueError for a link, which no wheel holds."""
    tree = Tree()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or skip.search(name):
            continue
        if path.is_symlink():
            raise ValueError(f"{path} is a link")
        tree.add(f"{below}/{name}", path.read_bytes())
    return tree
