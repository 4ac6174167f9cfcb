"""The configurations that were accepted here, the latest of them, as plain files.

``accepted-000012.yaml`` is a configuration byte for byte, and ``accepted-000012.json`` says when
it was accepted, by whom, how, and what it changed. The second file is written last: an entry
without it does not count. Both are for their owner alone, since configurations hold secrets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from tula.kernel.clock import Clock
from tula.kernel.directory import Directory

KEPT = 50
"""Entries at most."""
MOST_BYTES = 64 * 1024 * 1024
"""Of their configurations together; the two latest are kept whatever their size."""
_MODE = 0o600
_NAME = re.compile(r"accepted-(\d{6,})\.json")
_CHANGES = 100
"""Lines about one change at most."""


@dataclass(frozen=True, slots=True)
class Record:
    """What is told of an accepted configuration: who (a user, a signal), how, what changed."""

    by: str = ""
    how: str = ""
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted configuration; ``time`` in seconds since the epoch, ``digest`` its SHA-256."""

    number: int
    time: float
    digest: str
    by: str = ""
    how: str = ""
    changes: tuple[str, ...] = ()


def digest_of(text: bytes) -> str:
    """SHA-256 of a configuration's text, as hexadecimal digits."""
    return hashlib.sha256(text).hexdigest()


def find_entry(entries: Sequence[Entry], number: int | str | None, running: str) -> Entry:
    """The entry of that number, or the latest whose digest begins with that text; None: the latest
    one that holds another configuration than the running one, which has the digest ``running``.
    Raises LookupError, in words for the user."""
    if number is None:
        for entry in reversed(entries):
            if entry.digest != running:
                return entry
        raise LookupError("no other configuration was accepted here before")
    if isinstance(number, str):
        found = [entry for entry in entries if entry.digest.startswith(number.lower())]
        if len({entry.digest for entry in found}) > 1:
            raise LookupError(f"several accepted configurations begin with {number}; give more")
        if found:
            return found[-1]
    for entry in entries:
        if entry.number == number:
            return entry
    kept = f"; kept are {entries[0].number} to {entries[-1].number}" if entries else ""
    raise LookupError(f"no accepted configuration {number}{kept} (tula history)")


class History:
    """The entries in one directory. Methods raise OSError."""

    def __init__(self, files: Directory, clock: Clock) -> None:
        self._files = files
        self._clock = clock

    def entries(self) -> tuple[Entry, ...]:
        """All, the oldest first; those that somebody damaged are left out."""
        found = []
        for number in self._numbers():
            with suppress(FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
                data = json.loads(self._files.read(_name(number, "json")))
                found.append(
                    Entry(
                        number,
                        float(data["time"]),
                        str(data["digest"]),
                        str(data.get("by", "")),
                        str(data.get("how", "")),
                        tuple(map(str, data.get("changes", ()))),
                    )
                )
        return tuple(found)

    def read(self, number: int) -> bytes:
        """The configuration of an entry."""
        return self._files.read(_name(number, "yaml"))

    def prepare(self, text: bytes, record: Record) -> Callable[[], None]:
        """Brings a new entry to the disk; it counts once the result was called."""
        number = max(self._numbers(), default=0) + 1
        changes = record.changes
        if len(changes) > _CHANGES:
            changes = (*changes[:_CHANGES], f"and {len(changes) - _CHANGES} more")
        entry = Entry(number, self._clock.wall(), digest_of(text), record.by, record.how, changes)
        told = json.dumps(asdict(entry), indent=1).encode()
        name_text = self._files.prepare(_name(number, "yaml"), text, _MODE)
        name_told = self._files.prepare(_name(number, "json"), told, _MODE)

        def accept() -> None:
            name_text()
            name_told()
            self._prune()

        return accept

    def _numbers(self) -> list[int]:
        try:
            names = self._files.names()
        except FileNotFoundError:
            return []
        return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)

    def _prune(self) -> None:
        """Removes the oldest ones beyond the bounds. What cannot be removed stays."""
        total = 0
        for at, number in enumerate(reversed(self._numbers())):
            with suppress(OSError):
                total += self._files.size(_name(number, "yaml"))
            if at >= 2 and (at >= KEPT or total > MOST_BYTES):
                with suppress(OSError):
                    self._files.remove(_name(number, "json"))
                    self._files.remove(_name(number, "yaml"))


def _name(number: int, kind: str) -> str:
    return f"accepted-{number:06}.{kind}"
