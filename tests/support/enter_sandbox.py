"""Does to itself what systemd does to a unit's process, then becomes the command. No seccomp.

``python enter_sandbox.py JSON``, by root, with the fields of ``support.sandbox.Plan``; standard
library only. The mounts are in a mount namespace of its own, and gone with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

NEWNS = 0x20000
RDONLY, NOSUID, REMOUNT, BIND, REC, PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
FLAGS = {"nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "relatime": 1 << 21}
SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    if libc.mount(*words, ctypes.c_ulong(flags), data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {target}: {os.strerror(number)}")


def enter(plan: dict[str, Any]) -> None:
    """The mount namespace of the unit."""
    if libc.unshare(NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    try:
        mount(None, "/", None, REC | PRIVATE)
    except OSError:  # in a chroot: there / is a directory, and has to become a mount
        place = tempfile.mkdtemp()
        mount("/", place, None, BIND | REC)
        os.chroot(place)
        os.chdir("/")
        mount(None, "/", None, REC | PRIVATE)
    # Opened now: what comes may be mounted over the places where they are.
    held = {target: os.open(source, os.O_PATH) for target, source in plan["binds"].items()}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    # Emptied, so that mount points can be made in them and nothing else of theirs is used.
    for parent in sorted({str(Path(target).parent) for target in held}):
        mount("tmpfs", parent, "tmpfs", NOSUID, "mode=755")
    for target, descriptor in held.items():
        Path(target).mkdir()
        mount(f"/proc/self/fd/{descriptor}", target, None, BIND)
    writable = [*plan["writable"], "/proc", "/sys", "/dev"]
    if plan["private_tmp"]:
        for target in ("/tmp", "/var/tmp"):
            mount("tmpfs", target, "tmpfs", NOSUID, "mode=1777")
            writable.append(target)
    if plan["protect_home"]:
        for target in filter(os.path.isdir, ("/home", "/root", "/run/user")):
            mount("tmpfs", target, "tmpfs", NOSUID, "mode=000")
    if plan["private_devices"]:
        mount("tmpfs", "/dev", "tmpfs", NOSUID, "mode=755")
        for name, descriptor in devices.items():
            Path("/dev", name).touch()
            mount(f"/proc/self/fd/{descriptor}", f"/dev/{name}", None, BIND)
    if plan["protect_system"]:
        read_only(writable)
    if plan["protect_tunables"]:
        mount("/proc/sys", "/proc/sys", None, BIND)
        mount(None, "/proc/sys", None, REMOUNT | BIND | RDONLY)
    for descriptor in (*held.values(), *devices.values()):
        os.close(descriptor)


def read_only(writable: list[str]) -> None:
    """Every mount but those."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target, options = line.split()[4:6]
        path = target.replace("\\040", " ")
        if any(path == spared or path.startswith(f"{spared}/") for spared in writable):
            continue
        flags = sum(FLAGS.get(option, 0) for option in options.split(","))
        try:
            mount(None, path, None, REMOUNT | BIND | RDONLY | flags)
        except OSError:  # covered by another mount, so not to be reached
            continue


def become(plan: dict[str, Any]) -> None:
    """The unit's user with its capabilities, and then the command."""
    os.umask(plan["umask"])
    os.chdir("/")
    if plan["deny_write_execute"]:
        libc.prctl(SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)  # since Linux 6.3; kept over exec
    bounding = ",".join(["-all", *(f"+{name}" for name in plan["bounding"])])
    ambient = ",".join(["-all", *(f"+{name}" for name in plan["ambient"])])
    user = [f"--reuid={plan['uid']}", f"--regid={plan['gid']}", "--clear-groups"]
    rights = [f"--bounding-set={bounding}", f"--inh-caps={ambient}", f"--ambient-caps={ambient}"]
    rights += ["--no-new-privs"] if plan["no_new_privileges"] else []
    os.execvpe("setpriv", ["setpriv", *user, *rights, "--", *plan["command"]], plan["environment"])


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    enter(wanted)
    become(wanted)
