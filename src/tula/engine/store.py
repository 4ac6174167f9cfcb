"""What Tula remembers on disk, in its state directory.

``document.yaml`` is the accepted configuration, byte for byte, and ``accepted-*`` are those before
it (see ``tula.engine.history``); ``memory.json`` holds the ids,
and the counters of elements that the kernel no longer has; ``overrides.json`` the operator's
overrides; ``sysctls.json`` the values of kernel settings before Tula changed them. Each file is
replaced as a whole (written under another name, fsync, rename), so a crash leaves the old one or
the new one. None is needed to keep traffic going: the kernel forwards without them, and the ids
can be read back from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tula.engine.history import Entry, History, Record, digest_of
from tula.kernel.clock import Clock, SystemClock, to_boot, to_wall
from tula.kernel.directory import Directory, describe_error
from tula.model.errors import StateError
from tula.model.health import BackendName, Override
from tula.model.stats import Count
from tula.plan.probe_sysctls import is_setting

CONFIGURATION, CLEARED, MEMORY, LOCK = "document.yaml", "cleared.yaml", "memory.json", "lock"
OVERRIDES = "overrides.json"
SYSCTLS = "sysctls.json"
DAEMON_LOCK = "daemon.lock"
TENTATIVE = "tentative"
_SECRET = 0o600
"""Configurations hold passwords."""

RetiredCounts = Mapping[str, Mapping[str, Count]]
"""By service, then by Backend.key."""


LOCK_TIMEOUT = 60.0
"""Seconds that a command waits for another that changes something: a large apply takes tens."""
_ONE_DAEMON = 0.2
"""Seconds that a daemon waits for its own lock: ``has_daemon`` takes it for a moment."""
_DAMAGED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What decoding raises when somebody has edited the file, or the disk has corrupted it."""


class _LockedError(StateError):
    """Another process has the lock."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the data path wants remembered, as JSON, and the counters of elements that are gone."""

    path: Mapping[str, Any] = field(default_factory=dict)
    retired: RetiredCounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChangedSysctl:
    """The value that was found, and the one that Tula wrote."""

    found: str
    made: str


class Store:
    """The files of one state directory; the directory is made when something is written."""

    def __init__(
        self,
        directory: Path,
        lock_timeout: float = LOCK_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        """``lock_timeout`` is in seconds; ``clock`` is this machine's unless a test has another."""
        self.directory = directory
        self._clock = clock or SystemClock()
        self._files = Directory(directory)
        self._history = History(self._files, self._clock)
        self._lock_timeout = lock_timeout
        self._owned = False
        self.damage = ""
        """Why the overrides that were last read are not what the operator gave; empty if they are.
        """

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Excludes every other process that changes something.

        The daemon has excluded them since its start, and never waits. Raises StateError while
        another process is this directory's daemon, and when the lock is not free in time.
        """
        if self._owned:
            yield
            return
        with ExitStack() as stack:
            self._lock(stack, LOCK, self._lock_timeout, self._require_no_daemon)
            self._require_no_daemon()
            yield

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Makes this process the directory's daemon; two would undo each other's work.

        Waits for a command that is changing something; later ones are refused. Raises StateError
        if there is a daemon already, or the command does not end in time.
        """
        with ExitStack() as stack:
            try:
                self._lock(stack, DAEMON_LOCK, _ONE_DAEMON)
            except _LockedError as error:
                raise StateError(f"{self.directory}: a daemon runs here already") from error
            self._lock(stack, LOCK, self._lock_timeout)
            stack.callback(setattr, self, "_owned", False)
            self._owned = True
            yield

    def has_daemon(self) -> bool:
        """Whether a daemon runs on this directory; it may be starting or stopping."""
        try:
            return self._files.is_locked(DAEMON_LOCK)
        except OSError:
            return False

    def _require_no_daemon(self) -> None:
        if self.has_daemon():
            raise StateError(f"{self.directory}: a daemon is starting or stopping; try again")

    def _lock(
        self,
        stack: ExitStack,
        name: str,
        timeout: float,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes a lock for as long as the stack is open."""
        try:
            file = stack.enter_context(self._files.lock(name, timeout, give_up))
        except TimeoutError as error:
            raise _LockedError(f"{self.directory}: {error.strerror}") from error
        except OSError as error:
            raise StateError(f"{self.directory}: {describe_error(error)}") from error
        if name == LOCK:
            # KernelNftables.run lets nft inherit the lock: if this process is killed, nobody may
            # compare before its nft has ended.
            os.set_inheritable(file, True)

    def configuration(self) -> bytes | None:
        """The last accepted configuration; None if there is none. Raises StateError."""
        return self._read(CONFIGURATION)

    def prepare_configuration(
        self, text: bytes, record: Record | None = None
    ) -> Callable[[], None]:
        """Writes a configuration under a temporary name; calling the result accepts it.

        So a full disk is noticed before the kernel is changed. ``record`` is what the history
        says of it. Both raise StateError.
        """
        if self.configuration() == text:
            return lambda: None
        accept = self._write_aside(CONFIGURATION, text, _SECRET)
        with self._state_errors():
            enter = self._history.prepare(text, record or Record())

        def both() -> None:
            accept()
            with self._state_errors():
                enter()

        return both

    def history(self) -> tuple[Entry, ...]:
        """The accepted configurations, the oldest first; the last one runs. Raises StateError."""
        with self._state_errors():
            entries = self._history.entries()
        accepted = self.configuration()
        if accepted is None or (entries and entries[-1].digest == digest_of(accepted)):
            return entries
        # It was accepted by an earlier version, or the daemon was killed in between.
        number = entries[-1].number + 1 if entries else 1
        with self._state_errors():
            when = self._files.modified(CONFIGURATION)
        return (*entries, Entry(number, when, digest_of(accepted)))

    def past_configuration(self, number: int) -> bytes:
        """The text of an entry of the history. Raises StateError."""
        with self._state_errors():
            try:
                return self._history.read(number)
            except FileNotFoundError:
                pass
        accepted, entries = self.configuration(), self.history()
        if accepted is None or not entries or entries[-1].number != number:
            raise StateError(f"{self.directory}: no accepted configuration {number}")
        return accepted

    def complete_history(self) -> None:
        """Enters the accepted configuration, where it is not in the history. Raises StateError."""
        accepted = self.configuration()
        with self._state_errors():
            entries = self._history.entries()
            if accepted is not None and (not entries or entries[-1].digest != digest_of(accepted)):
                self._history.prepare(accepted, Record(how="found at start"))()

    def mark_tentative(self, waits: bool) -> None:
        """Remembers that a configuration runs that is not accepted. Raises StateError."""
        try:
            if waits:
                self._files.write(TENTATIVE, b"", _SECRET)
            else:
                self._files.remove(TENTATIVE)
        except OSError as error:
            raise StateError(f"{self.directory / TENTATIVE}: {error.strerror}") from error

    def is_tentative(self) -> bool:
        """Whether one ran when the daemon ended, as far as is known. Raises StateError."""
        return self._read(TENTATIVE) is not None

    def clear_configuration(self) -> None:
        """Renames the configuration, so that nothing applies it again. Raises StateError."""
        try:
            self._files.rename(CONFIGURATION, CLEARED)
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
            # The ids are in the kernel as well: a damaged file must not stop an apply.
            return Remembered()

    def save_remembered(self, remembered: Remembered) -> None:
        """Remembers it. Raises StateError."""
        self._write(MEMORY, json.dumps(_encode(remembered)).encode())

    def overrides(self) -> dict[BackendName, Override]:
        """The operator's overrides; none if the file is missing, or damaged: ``damage`` says so
        then. Raises StateError."""
        text = self._read(OVERRIDES)
        self.damage = ""
        try:
            return _decode_overrides(json.loads(text), self._clock) if text is not None else {}
        except _DAMAGED:
            self.damage = (
                f"{self.directory / OVERRIDES} is damaged: drains, weights and what was "
                "disabled are forgotten; give them again"
            )
            return {}

    def save_overrides(self, overrides: Mapping[BackendName, Override]) -> None:
        """Saves the operator's overrides. Raises StateError."""
        data = _encode_overrides(overrides, self._clock)
        self._write(OVERRIDES, json.dumps(data).encode())

    def sysctls(self) -> dict[str, ChangedSysctl]:
        """The settings that Tula changed, in that order; none if the file is missing or damaged.

        Settings that Tula never changes are ignored: root restores what is listed here, and the
        directory belongs to the daemon's user. Raises StateError.
        """
        text = self._read(SYSCTLS)
        try:
            entries = json.loads(text) if text is not None else {}
            return {
                str(name): ChangedSysctl(str(entry["found"]), str(entry["made"]))
                for name, entry in entries.items()
                if is_setting(str(name), str(entry["found"]))
            }
        except _DAMAGED:
            return {}

    def save_sysctls(self, changed: Mapping[str, ChangedSysctl]) -> None:
        """Saves them; removes the file if there are none. Raises StateError."""
        if changed:
            entries = {name: {"found": c.found, "made": c.made} for name, c in changed.items()}
            self._write(SYSCTLS, json.dumps(entries).encode())
            return
        try:
            self._files.remove(SYSCTLS)
        except OSError as error:
            raise StateError(f"{self.directory / SYSCTLS}: {error.strerror}") from error

    def _read(self, name: str) -> bytes | None:
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise StateError(f"{self.directory}: {describe_error(error)}") from error
        except OSError as error:
            raise StateError(f"{self.directory / name}: {error.strerror}") from error

    def _write(self, name: str, text: bytes) -> None:
        self._write_aside(name, text)()

    @contextmanager
    def _state_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(f"{self.directory}: {error.strerror or error}") from error

    def _write_aside(self, name: str, text: bytes, mode: int = 0o644) -> Callable[[], None]:
        """Writes the text to disk under a temporary name; the result renames it."""
        final = self.directory / name
        try:
            rename = self._files.prepare(name, text, mode)
        except OSError as error:
            raise StateError(f"{final}: {error.strerror}") from error

        def checked() -> None:
            try:
                rename()
            except OSError as error:
                raise StateError(f"{final}: {error.strerror}") from error

        return checked


# Times are written in seconds since the epoch, where earlier versions look for them, and again
# under "boot", in seconds of the boot clock.


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


def _encode_overrides(overrides: Mapping[BackendName, Override], clock: Clock) -> dict[str, Any]:
    backends = {}
    for (service, backend), override in overrides.items():
        since, deadline = override.since, override.deadline
        backends[f"{service}/{backend}"] = asdict(override) | {
            "since": to_wall(clock, since),
            "deadline": None if deadline is None else to_wall(clock, deadline),
            "boot": {"id": clock.boot_id(), "since": since, "deadline": deadline},
        }
    return {"version": 1, "backends": backends}


def _decode_overrides(data: dict[str, Any], clock: Clock) -> dict[BackendName, Override]:
    found: dict[BackendName, Override] = {}
    for name, given in data["backends"].items():
        service, _, backend = name.partition("/")
        weight, deadline, boot = given.get("weight"), given.get("deadline"), given.get("boot", {})
        found[service, backend] = Override(
            drain=bool(given.get("drain")),
            disable=bool(given.get("disable")),
            weight=None if weight is None else int(weight),
            since=_decode_time(clock, given.get("since", 0.0), boot.get("since"), boot),
            deadline=None
            if deadline is None
            else _decode_time(clock, deadline, boot.get("deadline"), boot),
            release=bool(given.get("release")),
        )
    return found


def _decode_time(clock: Clock, wall: Any, kept: Any, boot: dict[str, Any]) -> float:
    at = None if kept is None else float(kept)
    return to_boot(clock, float(wall), at, str(boot.get("id", "")))
