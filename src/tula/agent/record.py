"""What ``tula backend join`` remembers on disk: the documents, and what it changed.

It is written before anything is changed, so that ``leave`` finds all of it after a crash.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from tula.agent.diff import Made
from tula.kernel.whole_file import write_whole
from tula.model.errors import KernelError

FILE, _LOCK = "backend.json", "backend.lock"


@dataclass(frozen=True, slots=True)
class Source:
    """A document, letter by letter, where it was, and the backend that this machine is."""

    file: str
    text: str
    name: str | None = None
    """As the user said; None: found by the machine's addresses."""


@dataclass(frozen=True, slots=True)
class Record:
    """``unit`` is the path of the systemd unit that was made, if one was."""

    sources: tuple[Source, ...] = ()
    made: Made = field(default_factory=Made)
    addresses: tuple[str, ...] = ()
    """Those of the machine at the last join, by which it is found again before it has them."""
    unit: str = ""
    version: int = 2


_FORMAT = TypeAdapter(Record)


class RecordFile:
    """The record in a state directory. Methods raise KernelError when the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        return self._directory / FILE

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others that change this machine's backend's side out until it ends."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            handle = (self._directory / _LOCK).open("w")
        except OSError as error:
            raise KernelError(
                f"{self._directory}: {error.strerror}; choose another --state-dir"
            ) from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def read(self) -> Record | None:
        """None if this machine is no backend."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error
        try:
            record = _FORMAT.validate_python(_upgraded(from_json(text)))
        except ValueError as error:
            raise KernelError(
                f"{self.path} is damaged; put it aside, and join and leave again"
            ) from error
        if record.version != Record().version:
            raise KernelError(f"{self.path} is of another Tula (version {record.version})")
        return record

    def write(self, record: Record) -> None:
        try:
            write_whole(self.path, _FORMAT.dump_json(record, indent=1))
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error

    def remove(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
            (self._directory / _LOCK).unlink(missing_ok=True)
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error


_RENAMED = {
    "side": "setup",
    "ends": "devices",
    "told": "attributes",
    "loose": "loose_rp_filter",
    "made": "written",
}
"""Keys inside ``made`` that version 1 had under other names."""


def _upgraded(found: Any) -> Any:
    """A record of version 1 in the terms of version 2; anything else as it is."""
    if not isinstance(found, dict) or found.get("version") != 1:
        return found
    return {**found, "made": _with_new_keys(found.get("made", {})), "version": 2}


def _with_new_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_RENAMED.get(key, key): _with_new_keys(part) for key, part in value.items()}
    return [_with_new_keys(part) for part in value] if isinstance(value, list) else value
