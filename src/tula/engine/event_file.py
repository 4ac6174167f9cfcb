"""Events on disk: lines of JSON in the state directory, which survive restarts of the daemon.

``events.jsonl`` has a line that names the epoch, and then an event a line; when it is full it
becomes ``events.old.jsonl``, so both together are bounded. A line that cannot be read (a crash tore
it, a later version wrote it) costs that event and no other.

No fsync: like the journal's, the events of the last seconds before a power failure may be lost, and
an event never waits for the disk.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tula.kernel.directory import Directory
from tula.model.errors import StateError
from tula.model.event import Event, EventKind

EVENTS, OLD = "events.jsonl", "events.old.jsonl"
KEPT = 2000
"""Events that are remembered at least, and that wait for the disk at most."""
_FULL = 1 << 20
"""Bytes of a file, after which the next one begins: about 5,000 events."""
_RETRY = 5.0
"""Seconds between two tries to write what the disk did not take."""
_END = 3.0
"""Seconds that the end of the daemon waits for the disk."""
_FIELDS = frozenset(field.name for field in fields(Event))
_TEXTS = frozenset(field.name for field in fields(Event) if field.default == "")
_DAMAGED = (LookupError, ValueError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The last events on disk, the oldest first, and the epoch that their numbers belong to.

    ``epoch`` is empty when nothing is stored. ``next_number`` is what the next event may be called:
    no reader has seen it as another event's.
    """

    epoch: str = ""
    events: tuple[Event, ...] = ()

    @property
    def next_number(self) -> int:
        """After a crash, events may have been shown that the disk does not have."""
        if not self.events:
            return 1
        last = self.events[-1]
        clean = last.kind is EventKind.DAEMON_STOPPED
        return last.number + (1 if clean else 1 + KEPT)


def read_events(directory: Path) -> StoredEvents:
    """What is stored in a state directory. Raises StateError when it cannot be read."""
    files = Directory(directory)
    epoch, found = "", deque[Event](maxlen=KEPT)
    for name in (OLD, EVENTS):
        try:
            text = files.read(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StateError(f"{directory / name}: {error.strerror}") from error
        for line in text.split(b"\n"):
            entry = _decode(line)
            if isinstance(entry, str):
                if entry != epoch:  # somebody removed one file and left the other
                    found.clear()
                epoch = entry
            elif entry is not None and epoch and (not found or entry.number > found[-1].number):
                found.append(entry)
    return StoredEvents(epoch, tuple(found))


class EventFile:
    """Writes events to disk, in a thread of its own: whoever adds one never waits."""

    def __init__(
        self,
        directory: Path,
        on_failure: Callable[[str], None] = lambda _: None,
        full: int = _FULL,
    ) -> None:
        """``on_failure`` is told why the disk takes nothing, once each time it begins to."""
        self._directory = directory
        self._files = Directory(directory)
        self._on_failure = on_failure
        self._full = full
        self._epoch = ""
        self._waiting: deque[Event] = deque(maxlen=KEPT)
        self._changed = threading.Condition()
        self._ending = False
        self._failed = False
        self._headed = False
        self._thread: threading.Thread | None = None

    def open(self, epoch: str) -> StoredEvents:
        """Begins to write, and returns what is there; ``epoch`` is for a file that is not there.

        What cannot be read counts as not there, and is left alone if it cannot be replaced.
        """
        try:
            stored = read_events(self._directory)
        except StateError as error:
            self._on_failure(str(error))
            stored = StoredEvents()
        self._epoch = stored.epoch or epoch
        # Not joined for ever at the end, so it may not keep the process: a disk may hang.
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()
        return StoredEvents(self._epoch, stored.events)

    def add(self, event: Event) -> None:
        """Has it written; the oldest that wait are given up when the disk takes none for long."""
        with self._changed:
            self._waiting.append(event)
            self._changed.notify()

    def close(self) -> None:
        """Writes what is left, if the disk takes it now."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_END)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                batch, ending = tuple(self._waiting), self._ending
            if batch and not self._written(batch):
                with self._changed:
                    if not ending:
                        self._changed.wait_for(lambda: self._ending, _RETRY)
            elif batch:
                self._drop(batch)
            if ending:
                return

    def _drop(self, written: tuple[Event, ...]) -> None:
        last = written[-1].number
        with self._changed:
            while self._waiting and self._waiting[0].number <= last:
                self._waiting.popleft()

    def _written(self, batch: Iterable[Event]) -> bool:
        try:
            self._write(b"".join(map(_encode, batch)))
        except OSError as error:
            if not self._failed:
                self._on_failure(f"{self._directory / EVENTS}: {error.strerror or error}")
            self._failed = True
            return False
        self._failed = False
        return True

    def _write(self, lines: bytes) -> None:
        try:
            if self._files.size(EVENTS) >= self._full:
                self._files.rename(EVENTS, OLD)
                self._headed = False
        except FileNotFoundError:  # none yet, or somebody has removed it
            self._headed = False
        # Also once by each daemon: the line may be what a crash has torn.
        head = b"" if self._headed else _line({"epoch": self._epoch})
        self._files.append(EVENTS, head + lines)
        self._headed = True


def _line(value: dict[str, Any]) -> bytes:
    return (
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(
            errors="backslashreplace"
        )
        + b"\n"
    )


def _encode(event: Event) -> bytes:
    return _line(asdict(event))


def _decode(line: bytes) -> Event | str | None:
    """An event, the name of the epoch, or nothing that this version understands."""
    try:
        entry = json.loads(line)
        if "epoch" in entry:
            return str(entry["epoch"])
        found = {name: value for name, value in entry.items() if name in _FIELDS}
        if any(not isinstance(found.get(name, ""), str) for name in _TEXTS):
            return None
        kind, number, time = EventKind(found["kind"]), int(found["number"]), float(found["time"])
        return Event(**{**found, "kind": kind, "number": number, "time": time})
    except _DAMAGED:
        return None
