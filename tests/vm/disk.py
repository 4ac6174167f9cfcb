"""The VM's disk: this checkout, its Python and the programs that tests start.

Over 9p, on which vng shows the VM this machine, ``import pytest`` takes half a minute and every
program a second; from a disk of its own 3.5 s and 0.06 s. The disk is a scratch copy: what the
tests write goes with it. Everything has the path that it has here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from vm.errors import VmError
from vm.tree import Tree

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = """
    bash bird birdc bridge cat chmod chroot cp curl cut date dirname dmesg echo env ethtool false
    find grep head hostname id install ip ipvsadm keepalived kill ln ls mkdir modprobe mount mv nft
    nsenter ping ps readlink rm rmdir sed setpriv sh sleep sort ss stat sysctl tail tcpdump test
    timeout touch tr true umount uname unshare wc
"""
"""Those of them that this machine has."""

_FILES = """
    /etc/group /etc/hosts /etc/iproute2 /etc/ld.so.cache /etc/nsswitch.conf /etc/passwd
    /etc/protocols /etc/services /lib/x86_64-linux-gnu/libgcc_s.so.1 /usr/lib/iproute2
    /usr/share/iproute2
"""
"""What programs open by themselves; those of them that this machine has."""

_EMPTY = ("dev", "lib/modules", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp")
_SPACE = 256
"""MiB for what the tests write elsewhere than in /tmp."""

_NOT_OF_CHECKOUT = (".git", ".venv", ".vm", ".packages", ".hypothesis", ".*_cache", "build", "dist")
_NOT_OF_VENV = ("mypy", "mypyc", "*__mypyc*", "ruff", "pip", "setuptools", "virtme*")
_NOT_OF_PYTHON = (
    *("site-packages", "dist-packages", "test", "idlelib", "tkinter", "_tkinter*", "turtledemo"),
    *("ensurepip", "config-3.*", "*.opt-?.pyc"),
)


def build_disk(checkout: Path, folder: Path) -> Path:
    """An ext4 image in ``folder`` with all of it."""
    tree = Tree(folder / "tree")
    tree.add(checkout, _NOT_OF_CHECKOUT)
    tree.compile(checkout)
    tree.add(Path(sys.prefix), _NOT_OF_VENV)
    tree.add(Path(sysconfig.get_path("stdlib")), _NOT_OF_PYTHON)
    programs = [found for name in _PROGRAMS.split() if (found := shutil.which(name, path=_PATH))]
    for path in (*_FILES.split(), *programs, sys.executable):
        if Path(path).exists():
            tree.add(Path(path))
    tree.add_libraries([*programs, sys.executable])
    for link in ("/bin", "/sbin", "/lib", "/lib64"):
        tree.add_links(Path(link))  # of a merged /usr
    for name in _EMPTY:
        tree.add_folder(name)
    image = folder / "disk.ext4"
    _make_filesystem(image, tree)
    tree.remove()
    return image


def _make_filesystem(image: Path, tree: Tree) -> None:
    command = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
    command += ["-d", str(tree.root), str(image), f"{tree.megabytes() + _SPACE}M"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise VmError(f"mke2fs: {done.stderr.strip()}")
