"""The audit log: who changed what, when, from where, and what came of it.

``audit.jsonl`` in the state directory has a line of JSON for each change, and before it, while the
change is under way, one that says ``begun``: so a change whose process was killed is there too.
A full file becomes ``audit.1.jsonl``, that one ``audit.2.jsonl``, and the last one goes. The daemon
writes, and so does a command that changes something without it; a lock has one wait for the other.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from tula.engine.callers import DAEMON, Caller
from tula.kernel.directory import Directory, describe_error
from tula.model.errors import StateError

AUDIT, LOCK = "audit.jsonl", "audit.lock"
_FULL = 2 << 20
"""Bytes of a file, after which the next one begins: about 7,000 changes."""
_OLD = 7
"""Full files that are kept."""
_LOCKED = 2.0
"""Seconds that a writer waits for another."""
_RETRY = 5.0
"""Seconds between two tries to write what the disk did not take."""
_WAITING = 1000
"""Entries that wait for such a disk; older ones are lost, which the next line says."""
_END = 3.0
"""Seconds that the end of the daemon waits for the disk."""
_LONGEST = 500
"""Characters of any text in an entry."""
_MOST_DETAILS = 12
_DAMAGED = (LookupError, ValueError, TypeError, AttributeError, RecursionError)


class Result(StrEnum):
    """What came of a change."""

    BEGUN = "begun"
    """not known: it is under way, or its process ended before it could say"""
    DONE = "done"
    REFUSED = "refused"
    """nothing has changed"""
    FAILED = "failed"
    """the machine refused; what is on the disk by then is tried again"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. ``time``, when it was asked for, is in seconds since the epoch."""

    id: str
    time: float
    who: str
    """``root``, ``token:ci``, ``SIGHUP``, ``daemon``"""
    scope: str
    origin: str
    """the client's address, or ``local``"""
    action: str
    subject: str = ""
    """``service/backend``, a token's name, or empty"""
    details: Mapping[str, Any] = field(default_factory=dict)
    result: Result = Result.BEGUN
    why: str = ""
    """why it was refused or failed, in one line"""

    def ended(self, result: Result, why: str = "", **details: Any) -> Entry:
        """The same change, and what came of it."""
        return replace(self, result=result, why=why, details={**self.details, **details})


def new_entry(
    caller: Caller,
    action: str,
    subject: str = "",
    details: Mapping[str, Any] | None = None,
    wall: Callable[[], float] = time.time,
) -> Entry:
    """A change that is asked for now."""
    origin = caller.origin or "local"
    return Entry(
        *(secrets.token_hex(8), wall(), caller.who, str(caller.grant), origin, action, subject),
        dict(details or {}),
    )


def describe_entry(entry: Entry) -> dict[str, Any]:
    """As the log and ``tula audit --json`` have it."""
    return {
        "id": entry.id,
        "time": entry.time,
        "who": _cut(entry.who),
        "scope": _cut(entry.scope),
        "from": _cut(entry.origin),
        "action": _cut(entry.action),
        "subject": _cut(entry.subject),
        "details": {
            _cut(str(name)): value if _is_number(value) else _cut(str(value))
            for name, value in list(entry.details.items())[:_MOST_DETAILS]
        },
        "result": str(entry.result),
        "why": _cut(entry.why),
    }


def read_audit(directory: Path, limit: int) -> list[Entry]:
    """The last changes, the oldest first. Raises StateError when they cannot be read.

    A line that is not one (a crash tore it, a later version wrote it) costs itself and no other.
    """
    files, found = Directory(directory), dict[str, Entry]()
    for name in (AUDIT, *(_old(number) for number in range(1, _OLD + 1))):
        try:
            text = files.read(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StateError(f"{directory / name}: {error.strerror or error}") from error
        lines = [entry for line in text.split(b"\n") if (entry := _decode(line)) is not None]
        # From the end, so that what came of a change is seen before that it began.
        for entry in reversed(lines):
            if entry.id not in found:
                found[entry.id] = entry
        if len(found) >= limit:
            break
    kept = sorted(found.values(), key=lambda entry: entry.time)
    return kept[-limit:]


class AuditFile:
    """Writes entries, each process with one of its own. Methods raise StateError."""

    def __init__(self, directory: Path, full: int = _FULL) -> None:
        self._directory = directory
        self._files = Directory(directory)
        self._full = full

    def write(self, entries: Iterable[Entry], *, sync: bool = True) -> None:
        """Appends them, all or none; with ``sync`` they are on the disk then."""
        lines = b"".join(map(_encode, entries))
        try:
            with self._files.lock(LOCK, _LOCKED):
                with suppress(FileNotFoundError):
                    if self._files.size(AUDIT) >= self._full:
                        self._rotate()
                self._files.append(AUDIT, lines, sync=sync)
        except OSError as error:
            raise StateError(f"{self._directory / AUDIT}: {describe_error(error)}") from error

    def _rotate(self) -> None:
        for number in range(_OLD - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._files.rename(_old(number), _old(number + 1))
        self._files.rename(AUDIT, _old(1))


class AuditLog:
    """Writes in a thread of its own what the daemon is asked for: several changes at once cost
    one write. Whoever adds an entry may wait until it is on the disk, and need not.

    What the disk does not take stops nothing: it is kept for a while, tried again, and told.
    """

    def __init__(self, directory: Path, on_failure: Callable[[str], None] = lambda _: None) -> None:
        """``on_failure`` is told why the disk takes nothing, once each time it begins to."""
        self._directory = directory
        self._file = AuditFile(directory)
        self._on_failure = on_failure
        self._waiting: deque[tuple[Entry, Future[None]]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._lost = 0
        self.problem = ""
        """Why the log lacks the latest changes; empty if it has them."""

    @contextmanager
    def written(self) -> Iterator[None]:
        """Writes inside; at the end what is left, if the disk takes it now."""
        # Not joined for ever, so it may not keep the process: a disk may hang.
        thread = threading.Thread(target=self._run, name="audit", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._ending = True
                self._changed.notify()
            thread.join(_END)

    def add(self, entry: Entry) -> Future[None]:
        """Has it written. The result is set when that was tried, whatever came of it."""
        tried: Future[None] = Future()
        with self._changed:
            if self._ending or len(self._waiting) >= _WAITING:
                self._lost += 1
                tried.set_result(None)
            else:
                self._waiting.append((entry, tried))
                self._changed.notify()
        return tried

    def read(self, limit: int) -> list[Entry]:
        """As ``read_audit``."""
        return read_audit(self._directory, limit)

    def _run(self) -> None:
        left: list[Entry] = []
        ending = False
        while not ending:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting or self._ending, _RETRY if left else None
                )
                taken, ending = tuple(self._waiting), self._ending
                self._waiting.clear()
                left += [entry for entry, _ in taken]
                self._lost += max(0, len(left) - _WAITING)
                lost = self._lost
            del left[:-_WAITING]
            if left and self._written(left, lost):
                left.clear()
            for _, tried in taken:
                with suppress(InvalidStateError):  # nobody waits any more
                    tried.set_result(None)

    def _written(self, entries: list[Entry], lost: int) -> bool:
        if lost:
            gap = new_entry(DAEMON, "lost-entries", wall=lambda: entries[-1].time)
            entries = [gap.ended(Result.FAILED, self.problem, number=lost), *entries]
        try:
            # What only begins need not wait for the disk: it is there even if the daemon is killed.
            self._file.write(entries, sync=any(e.result is not Result.BEGUN for e in entries))
        except StateError as error:
            if not self.problem:
                self._on_failure(str(error))
            self.problem = f"changes are not in the audit log: {error}"
            return False
        with self._changed:
            self._lost -= lost
        self.problem = ""
        return True


def _old(number: int) -> str:
    return f"audit.{number}.jsonl"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _cut(text: str) -> str:
    # Names in a request's path are any text, and a terminal obeys what it is shown.
    plain = text.replace("\n", " ")
    shown = plain if plain.isprintable() else "".join(c if c.isprintable() else "?" for c in plain)
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"


def _encode(entry: Entry) -> bytes:
    text = json.dumps(describe_entry(entry), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace") + b"\n"


def _decode(line: bytes) -> Entry | None:
    try:
        given = json.loads(line)
        texts = [given[name] for name in ("id", "who", "scope", "from", "action")]
        subject, details, why = given["subject"], given["details"], given["why"]
        if not all(isinstance(text, str) for text in (*texts, subject, why)):
            return None
        ident, who, scope, origin, action = texts
        return Entry(
            *(ident, float(given["time"]), who, scope, origin, action, subject),
            {str(name): value for name, value in details.items()},
            Result(given["result"]),
            why,
        )
    except _DAMAGED:
        return None
