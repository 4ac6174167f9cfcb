"""What a balancer must not forget of changes on all balancers: ``everywhere.json``.

The change that it coordinates, whether that is decided, and what came of the last ones. The file
is replaced as a whole, and on the disk before anything follows from it; it is its owner's alone,
since configurations hold secrets.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tula.engine.everywhere import Change
from tula.kernel.directory import Directory
from tula.model.errors import StateError
from tula.plan.everywhere import Standing

NAME = "everywhere.json"
_VERSION, _MODE = 1, 0o600
_KEPT = 50
"""Outcomes that are remembered: a machine in doubt asks within minutes."""
_DAMAGED = (LookupError, ValueError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Entry:
    """A change that this balancer coordinates. ``before`` has, by machine, the digest of what it
    replaces there; ``left`` the machines that have not done it. Without ``decided`` there is no
    decision, and its text is not needed."""

    change: Change
    digest: str
    before: Mapping[str, str]
    left: frozenset[str]
    text: bytes = b""
    decided: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    decided: Entry | None = None
    begun: Entry | None = None
    outcomes: Mapping[str, Standing] = field(default_factory=dict)


class Journal:
    """The file of one state directory. Methods raise StateError; any thread may call them.

    A damaged file is an error, and never no decision.
    """

    def __init__(self, directory: Path) -> None:
        self._files = Directory(directory)
        self.path = directory / NAME
        self._lock = threading.RLock()
        self._kept: _Kept | None = None

    @property
    def decided(self) -> Entry | None:
        """The last change that was decided, while it is not done everywhere."""
        return self._read().decided

    @property
    def begun(self) -> Entry | None:
        """The change that is under way, and not decided."""
        return self._read().begun

    @property
    def outcomes(self) -> Mapping[str, Standing]:
        """What came of the last changes, by their ids."""
        return self._read().outcomes

    def begin(self, entry: Entry) -> None:
        """A change begins. If the disk does not take it, nothing has begun."""
        begun = replace(entry, text=b"", decided=False)
        self._write_or_not(lambda kept: replace(kept, begun=begun))

    def decide(self, entry: Entry) -> None:
        """The change that has begun is decided, in place of what was decided before it. When this
        fails, there is no decision."""

        def decided(kept: _Kept) -> _Kept:
            return _Kept(replace(entry, decided=True), None, _over(kept).outcomes)

        try:
            self._write_or_not(decided)
        except StateError:
            # The new file may be there already, and only its name not surely on the disk.
            with suppress(StateError):
                self._write(lambda kept: kept)
            raise

    def settle(self, machine: str) -> None:
        """A machine has what was decided, or needs it no more."""

        def without(kept: _Kept) -> _Kept:
            entry = kept.decided
            if entry is None:
                return kept
            left = entry.left - {machine}
            return replace(kept, decided=replace(entry, left=left)) if left else _over(kept)

        self._write(without)

    def abandon(self, change: str) -> None:
        """There is no decision about the change that has begun, and will be none."""

        def without(kept: _Kept) -> _Kept:
            begun = None if _is(kept.begun, change) else kept.begun
            return _Kept(kept.decided, begun, _with(kept.outcomes, change, Standing.ABORTED))

        self._write(without)

    def note(self, change: str, standing: Standing) -> None:
        """Remembers what came of a change on this machine."""
        if self.outcomes.get(change) is not standing:
            self._write(lambda k: replace(k, outcomes=_with(k.outcomes, change, standing)))

    def hand_over(self, change: str) -> None:
        """Another balancer coordinates it from now on."""
        if _is(self.begun, change):
            self._write(lambda kept: replace(kept, begun=None))

    def _read(self) -> _Kept:
        kept = self._kept
        if kept is not None:  # without the lock, which is held while the disk is waited for
            return kept
        with self._lock:
            self._kept = self._load()
            return self._kept

    def _load(self) -> _Kept:
        try:
            text = self._files.read(NAME)
        except (FileNotFoundError, NotADirectoryError):
            return _Kept()
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror or error}") from error
        try:
            return _decode(json.loads(text))
        except _DAMAGED:
            raise StateError(
                f"{self.path} is damaged, so what was decided last on all balancers is not known; "
                "compare tula status on all of them, then remove it"
            ) from None

    def _write(self, change: Callable[[_Kept], _Kept]) -> None:
        """What has happened has happened: it is remembered here even if the disk refuses."""
        with self._lock:
            kept = self._kept = change(self._read())
            try:
                text = json.dumps(_encode(kept), indent=1).encode()
                self._files.write(NAME, text, _MODE)
            except OSError as error:
                raise StateError(f"{self.path}: {error.strerror or error}") from error

    def _write_or_not(self, change: Callable[[_Kept], _Kept]) -> None:
        with self._lock:
            before = self._read()
            try:
                self._write(change)
            except StateError:
                self._kept = before
                raise


def _is(entry: Entry | None, change: str) -> bool:
    return entry is not None and entry.change.id == change


def _with(outcomes: Mapping[str, Standing], change: str, standing: Standing) -> dict[str, Standing]:
    others = [(name, known) for name, known in outcomes.items() if name != change]
    return dict([*others[1 - _KEPT :], (change, standing)])


def _over(kept: _Kept) -> _Kept:
    """What was decided is done. Only now an outcome: to have one means to have had it."""
    if kept.decided is None:
        return kept
    known = _with(kept.outcomes, kept.decided.change.id, Standing.CONFIRMED)
    return replace(kept, decided=None, outcomes=known)


def _encode(kept: _Kept) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "decided": _encode_entry(kept.decided),
        "begun": _encode_entry(kept.begun),
        "outcomes": {change: str(standing) for change, standing in kept.outcomes.items()},
    }


def _encode_entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return asdict(entry.change) | {
        "digest": entry.digest,
        "before": dict(entry.before),
        "left": sorted(entry.left),
        "configuration": entry.text.decode("utf-8", "surrogateescape"),
    }


def _decode(data: dict[str, Any]) -> _Kept:
    """Strict: what is not understood must not become that there is no decision."""
    if data["version"] != _VERSION:
        raise ValueError(data["version"])
    outcomes = {str(change): Standing(known) for change, known in data["outcomes"].items()}
    decided, begun = (_decode_entry(data[name], name == "decided") for name in ("decided", "begun"))
    return _Kept(decided, begun, outcomes)


def _decode_entry(given: dict[str, Any] | None, decided: bool) -> Entry | None:
    if given is None:
        return None
    words = {name: str(given[name]) for name in ("id", "coordinator", "by", "how")}
    change = Change(**words, force=bool(given["force"]), yes=bool(given["yes"]))
    text = str(given["configuration"]).encode("utf-8", "surrogateescape")
    before = {str(machine): str(digest) for machine, digest in given["before"].items()}
    left = frozenset(map(str, given["left"]))
    return Entry(change, str(given["digest"]), before, left, text, decided)
