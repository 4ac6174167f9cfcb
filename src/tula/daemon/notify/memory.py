"""What was told, in the state directory: ``notify.json``. A restart neither loses nor repeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tula.kernel.directory import Directory

FILE = "notify.json"
_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one receiver. ``cursor``: events up to that number are told; ``sent`` is
    as in ``Told``."""

    cursor: int = 0
    sent: Mapping[str, float] = field(default_factory=dict)
    missed: int = 0
    failing_since: float | None = None
    failing_told: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Of all receivers, by ``Receiver.identity``; numbers are of the log ``epoch``."""

    epoch: str = ""
    receivers: Mapping[str, Kept] = field(default_factory=dict)


def read_memory(state_dir: Path) -> Memory:
    """Nothing where nothing is, or it cannot be read: then all events that are kept are new to
    nobody."""
    try:
        data = json.loads(Directory(state_dir).read(FILE))
        return Memory(
            str(data["epoch"]),
            {str(key): _kept(each) for key, each in data["receivers"].items()},
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Memory()


def _kept(data: Any) -> Kept:
    since = data.get("failing_since")
    return Kept(
        int(data["cursor"]),
        {str(mark): float(at) for mark, at in data["sent"].items()},
        int(data.get("missed", 0)),
        None if since is None else float(since),
        bool(data.get("failing_told", False)),
    )


def write_memory(state_dir: Path, epoch: str, receivers: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces the file. Raises OSError."""
    text = json.dumps({"epoch": epoch, "receivers": receivers})
    Directory(state_dir).write(FILE, text.encode(), _MODE)
