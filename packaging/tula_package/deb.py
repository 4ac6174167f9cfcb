"""Writes a Debian package of a tree (deb(5)). dpkg-deb does it, of any architecture."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tula_package.tree import Tree


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package. ``control`` are its fields but for the size, in their order.

    ``scripts`` are maintainer scripts by name. What is below ``etc`` are the conffiles.
    """

    control: Mapping[str, str]
    tree: Tree
    scripts: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        return "{Package}_{Version}_{Architecture}.deb".format(**self.control)

    @property
    def conffiles(self) -> list[str]:
        return [path for path, _ in self.tree.files() if path.startswith("etc/")]


def render_control(package: Package) -> str:
    """``DEBIAN/control``: the size before the description, which has more than one line."""
    fields = dict(package.control)
    description = fields.pop("Description")
    fields["Installed-Size"] = str(package.tree.installed_size())
    fields["Description"] = description
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def write_package(package: Package, folder: Path, epoch: int) -> Path:
    """The package's file in the folder; twice the same bytes for the same tree and time."""
    output = folder / package.file_name
    partial = output.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        members = Tree()
        members.add("DEBIAN/control", render_control(package))
        members.add("DEBIAN/md5sums", package.tree.md5sums(frozenset(package.conffiles)))
        if package.conffiles:
            members.add("DEBIAN/conffiles", "".join(f"/{path}\n" for path in package.conffiles))
        for name, text in package.scripts.items():
            members.add(f"DEBIAN/{name}", text, 0o755)
        members.write(root, epoch)
        package.tree.write(root, epoch)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(partial)],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
        )
    partial.replace(output)  # one that was cut short has no name that apt would take
    return output
