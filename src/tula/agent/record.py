"""What ``tula backend join`` keeps on disk: the configurations, and what it changed.

It is written before anything is changed, so that ``leave`` finds all of it after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json

from tula.agent.diff import Made
from tula.kernel.directory import Directory, describe_error
from tula.model.backend_setup import UNMANAGED_FILE
from tula.model.errors import KernelError

FILE, _LOCK, _WATCH = "backend.json", "backend.lock", "backend.watch"
_TIMEOUT = 60.0
"""Seconds that a command waits for another."""
_SYSCTL = re.compile(r"net/ipv[46]/conf/(?!\.{1,2}/)[^/\s]+/[a-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a configuration file, its path, and which backend this machine is."""

    file: str
    text: str
    name: str | None = None
    """As given with ``--as``; None: found by the machine's addresses."""


@dataclass(frozen=True, slots=True)
class Record:
    """``unit`` is the path of the systemd unit that was made, if one was."""

    sources: tuple[Source, ...] = ()
    made: Made = field(default_factory=Made)
    addresses: tuple[str, ...] = ()
    """Those of the machine at the last join: at boot it is recognised by them before it has any."""
    unit: str = ""
    version: int = 2


_FORMAT = TypeAdapter(Record)


class RecordFile:
    """The record in a state directory. Methods raise KernelError for what fails on the disk."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = Directory(directory)

    @property
    def path(self) -> Path:
        return self._directory / FILE

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Excludes every other process that changes this machine's backend set-up."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._files.lock(_LOCK, _TIMEOUT))
            except TimeoutError as error:
                raise KernelError(f"{self._directory}: {error.strerror}") from error
            except OSError as error:
                raise KernelError(f"{self._directory}: {describe_error(error)}") from error
            yield

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For the one process that puts back what others take, as long as it runs."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._files.lock(_WATCH, 0))
            except TimeoutError as error:
                holder = str(error.strerror).partition("held by ")[2].partition(";")[0]
                raise KernelError(f"this backend is watched already, by {holder}") from error
            except OSError as error:
                raise KernelError(f"{self._directory}: {describe_error(error)}") from error
            yield

    def is_watched(self) -> bool:
        """Whether there is such a process."""
        try:
            return self._files.is_locked(_WATCH)
        except OSError:
            return False

    def read(self) -> Record | None:
        """None if this machine is no backend."""
        try:
            text = self._files.read(FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error
        try:
            record = _FORMAT.validate_python(_upgraded(from_json(text)))
            _require_own(record)
        except ValueError as error:
            raise KernelError(
                f"{self.path} is damaged; move it away, then join and leave again"
            ) from error
        if record.version != Record().version:
            raise KernelError(
                f"{self.path} was written by another version of Tula (version {record.version})"
            )
        return record

    def write(self, record: Record) -> None:
        try:
            self._files.write(FILE, _FORMAT.dump_json(record, indent=1))
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error

    def remove(self) -> None:
        try:
            self._files.remove(FILE)
        except OSError as error:
            raise KernelError(f"{self.path}: {error.strerror}") from error


def _require_own(record: Record) -> None:
    """Raises ValueError for a sysctl or a file that no join changes: root restores and removes what
    is listed here, and the directory may belong to the daemon's user."""
    for name, changed in record.made.settings.items():
        if not (_SYSCTL.fullmatch(name) and changed.found.isdecimal()):
            raise ValueError(name)
    unmanaged = record.made.setup.unmanaged
    if unmanaged and Path(unmanaged).name != Path(UNMANAGED_FILE).name:
        raise ValueError(unmanaged)


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
