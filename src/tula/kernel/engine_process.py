"""An engine's process: what it gets, and how it is found without its pid file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def find_engine(name: str, place: Path, owner: int) -> int | None:
    """The process of this program in this thread's network namespace that runs by this file and as
    this user; the parent, where it is several."""
    word, here = os.fsencode(place), _namespace(Path("/proc/thread-self"))
    found: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            same = Path(os.fsdecode(words[0])).name == name and word in words
            if same and process.stat().st_uid == owner and _namespace(process) == here:
                stat = process.joinpath("stat").read_text().rpartition(")")[2].split()
                if stat[0] != "Z":
                    found[int(process.name)] = int(stat[1])
        except OSError:  # it has ended, or is not ours to look at
            continue
    return next((pid for pid, parent in sorted(found.items()) if parent not in found), None)


def _namespace(process: Path) -> tuple[int, int]:
    found = process.joinpath("ns/net").stat()
    return found.st_dev, found.st_ino


def program_path() -> str:
    """Where programs are: a user's PATH lacks the directories of system programs."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def environment() -> Mapping[str, str]:
    """What an engine gets: nothing of what systemd told the daemon of itself."""
    return {"PATH": program_path(), "LC_ALL": "C.UTF-8"}
