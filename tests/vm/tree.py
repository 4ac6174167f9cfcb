"""A copy of a part of this machine's files, each under the path that it has here."""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path


class Tree:
    """The folder that holds the copy."""

    def __init__(self, root: Path) -> None:
        """Describe it; what is added makes it."""
        self.root = root

    def add(self, path: Path, left_out: Sequence[str] = ()) -> None:
        """A file or a folder, without the names that fit a pattern of ``left_out``."""
        real = self.add_links(path)
        target = self._place(real)
        if real.is_dir():
            ignore = shutil.ignore_patterns(*left_out)
            shutil.copytree(
                real, target, symlinks=True, ignore=ignore, copy_function=_link, dirs_exist_ok=True
            )
        elif not target.exists():
            _link(real, target)

    def add_links(self, path: Path) -> Path:
        """The symbolic links on the way to a path, itself perhaps one; returns where they lead."""
        done, ahead = Path("/"), deque(path.parts[1:])
        while ahead:
            step = done / ahead.popleft()
            if step.name == "..":
                done = done.parent
            elif step.is_symlink():
                leads = step.readlink()
                link = self._place(step)
                if not link.is_symlink():
                    link.symlink_to(leads)
                if leads.is_absolute():
                    done = Path("/")
                ahead.extendleft(part for part in reversed(leads.parts) if part != "/")
            else:
                done = step
        return done

    def add_folder(self, name: str) -> None:
        """An empty one, unless it has come already."""
        self._place(self.add_links(Path("/") / name)).mkdir(exist_ok=True)

    def add_libraries(self, programs: Sequence[str]) -> None:
        """The shared libraries of these programs and of all modules in the tree."""
        modules = [f"/{path.relative_to(self.root)}" for path in self.root.rglob("*.so")]
        # ldd fails when one of the files is a script, and has told about the others all the same.
        listed = subprocess.run(["ldd", *programs, *modules], capture_output=True, text=True)
        found = re.findall(r"^\t(?:.* => )?(/\S+) \(0x", listed.stdout, re.MULTILINE)
        for library in sorted(set(found)):
            self.add(Path(library))

    def megabytes(self) -> int:
        """The room that it takes in blocks of 4 KiB."""
        sizes = (path.lstat().st_size for path in self.root.rglob("*"))
        return sum(size // 4096 + 1 for size in sizes) // 256

    def remove(self) -> None:
        """The copy is gone."""
        shutil.rmtree(self.root)

    def compile(self, folder: Path) -> None:
        """Python's byte code of a folder: in the VM it takes ten times as long."""
        place = self._place(folder)
        compileall.compile_dir(place, quiet=2, stripdir=self.root, prependdir="/")

    def _place(self, path: Path) -> Path:
        """Where a path belongs in the tree; its folder is made."""
        place = self.root / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _link(source: str | Path, target: str | Path) -> None:
    """The same file where that can be, else a copy: the tree is only ever read."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
