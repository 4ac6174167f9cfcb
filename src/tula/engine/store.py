"""What Tula remembers on disk, in its state directory.

``document.yaml`` is the last accepted document, letter by letter; ``memory.json`` holds the ids
and the counts of what left the kernel; ``overrides.json`` what the operator said of backends;
``sysctls.json`` what settings of the kernel's were before Tula changed them. All are replaced as a
whole (write aside, fsync,
rename), so that a crash leaves the old or the new one. Neither is needed to keep traffic going:
the kernel does that, and tells the ids again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from tula.kernel.whole_file import write_aside
from tula.model.errors import StateError
from tula.model.health import BackendName, Override
from tula.model.stats import Count

DOCUMENT, CLEARED, MEMORY, LOCK = "document.yaml", "cleared.yaml", "memory.json", "lock"
OVERRIDES = "overrides.json"
SYSCTLS = "sysctls.json"
DAEMON_LOCK = "daemon.lock"

RetiredCounts = Mapping[str, Mapping[str, Count]]
"""By service, then by Backend.key."""


_UNWRITABLE = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT})
_DAMAGED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What decoding a file raises that somebody edited, or that a disk garbled."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the data path wants remembered, as JSON, and what was counted in what is gone."""

    path: Mapping[str, Any] = field(default_factory=dict)
    retired: RetiredCounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChangedSysctl:
    """The value that was found, and the one that Tula wrote."""

    found: str
    made: str


class Store:
    """The files of one state directory; the directory is made when something is written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other commands that change something out until it ends. Raises StateError.

        A program that is started meanwhile may keep the lock on: see KernelNftables.run.
        """
        with self._open_lock(LOCK) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.set_inheritable(handle.fileno(), True)
            yield

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Makes this process the directory's daemon; two would undo each other's work.

        Raises StateError if there is one.
        """
        with self._open_lock(DAEMON_LOCK) as handle:
            for left in reversed(range(10)):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    # A command that asks has it for a moment: see ``has_daemon``.
                    if not left:
                        raise StateError(f"{self.directory}: a daemon runs here already") from error
                    time.sleep(0.02)
            yield

    def has_daemon(self) -> bool:
        """Whether a daemon runs on this directory, though it may not answer yet, or no more."""
        try:
            handle = (self.directory / DAEMON_LOCK).open()
        except OSError:
            return False
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _open_lock(self, name: str) -> IO[str]:
        path = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
            try:
                return path.open("w")
            except OSError as error:
                # A disk that is full, or has failed: who only locks need not write.
                if error.errno not in _UNWRITABLE or not path.exists():
                    raise
                return path.open()
        except OSError as error:
            raise StateError(
                f"{self.directory}: {error.strerror}; choose another --state-dir"
            ) from error

    def document(self) -> bytes | None:
        """The last accepted document; None if there is none. Raises StateError."""
        return self._read(DOCUMENT)

    def prepare_document(self, text: bytes) -> Callable[[], None]:
        """Writes a document aside; calling the result makes it the accepted one.

        So a full disk is found before the kernel is changed. Both raise StateError.
        """
        if self.document() == text:
            return lambda: None
        return self._write_aside(DOCUMENT, text)

    def clear_document(self) -> None:
        """Puts the document aside, so that nothing applies it again. Raises StateError."""
        try:
            (self.directory / DOCUMENT).replace(self.directory / CLEARED)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"{self.directory}: {error.strerror}") from error

    def remembered(self) -> Remembered:
        """What is remembered; nothing if the file is missing or damaged. Raises StateError."""
        text = self._read(MEMORY)
        if text is None:
            return Remembered()
        try:
            return _decode(json.loads(text))
        except _DAMAGED:
            # The kernel knows the numbers as well: a damaged file must not stop an apply.
            return Remembered()

    def save_remembered(self, remembered: Remembered) -> None:
        """Remembers it. Raises StateError."""
        self._write(MEMORY, json.dumps(_encode(remembered)).encode())

    def overrides(self) -> dict[BackendName, Override]:
        """What the operator said; nothing if the file is missing or damaged. Raises StateError."""
        text = self._read(OVERRIDES)
        try:
            return _decode_overrides(json.loads(text)) if text is not None else {}
        except _DAMAGED:
            return {}

    def save_overrides(self, overrides: Mapping[BackendName, Override]) -> None:
        """Remembers what the operator said. Raises StateError."""
        self._write(OVERRIDES, json.dumps(_encode_overrides(overrides)).encode())

    def sysctls(self) -> dict[str, ChangedSysctl]:
        """The settings that Tula changed, in that order; none if the file is missing or damaged.

        Raises StateError.
        """
        text = self._read(SYSCTLS)
        try:
            entries = json.loads(text) if text is not None else {}
            return {
                str(name): ChangedSysctl(str(entry["found"]), str(entry["made"]))
                for name, entry in entries.items()
            }
        except _DAMAGED:
            return {}

    def save_sysctls(self, changed: Mapping[str, ChangedSysctl]) -> None:
        """Remembers them; without any the file goes. Raises StateError."""
        if changed:
            entries = {name: {"found": c.found, "made": c.made} for name, c in changed.items()}
            self._write(SYSCTLS, json.dumps(entries).encode())
            return
        try:
            (self.directory / SYSCTLS).unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{self.directory / SYSCTLS}: {error.strerror}") from error

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{self.directory / name}: {error.strerror}") from error

    def _write(self, name: str, text: bytes) -> None:
        self._write_aside(name, text)()

    def _write_aside(self, name: str, text: bytes) -> Callable[[], None]:
        """Brings the text to the disk under another name; the result renames it."""
        final = self.directory / name
        try:
            rename = write_aside(final, text)
        except OSError as error:
            raise StateError(f"{final}: {error.strerror}") from error

        def checked() -> None:
            try:
                rename()
            except OSError as error:
                raise StateError(f"{final}: {error.strerror}") from error

        return checked


def _encode(remembered: Remembered) -> dict[str, Any]:
    return {
        **remembered.path,
        "version": 1,
        "past": {
            service: {key: [count.packets, count.bytes] for key, count in counts.items()}
            for service, counts in remembered.retired.items()
        },
    }


def _decode(data: dict[str, Any]) -> Remembered:
    retired = {
        str(service): {str(key): Count(int(p), int(b)) for key, (p, b) in counts.items()}
        for service, counts in data["past"].items()
    }
    path = {name: value for name, value in data.items() if name not in ("version", "past")}
    return Remembered(path, retired)


def _encode_overrides(overrides: Mapping[BackendName, Override]) -> dict[str, Any]:
    backends = {f"{service}/{backend}": asdict(o) for (service, backend), o in overrides.items()}
    return {"version": 1, "backends": backends}


def _decode_overrides(data: dict[str, Any]) -> dict[BackendName, Override]:
    found: dict[BackendName, Override] = {}
    for name, given in data["backends"].items():
        service, _, backend = name.partition("/")
        weight, deadline = given.get("weight"), given.get("deadline")
        found[service, backend] = Override(
            drain=bool(given.get("drain")),
            disable=bool(given.get("disable")),
            weight=None if weight is None else int(weight),
            since=float(given.get("since", 0.0)),
            deadline=None if deadline is None else float(deadline),
        )
    return found
