"""What a coordinator must not forget, on a disk that tears, fails and is full."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tula.engine.everywhere import Change
from tula.engine.everywhere_journal import NAME, Entry, Journal
from tula.kernel.directory import Directory
from tula.model.errors import StateError
from tula.plan.everywhere import Standing

CHANGE = Change("0123456789abcdef", "lb1", "root", "apply everywhere", yes=True)
TEXT = "services: {}\n# ö\n".encode()
ENTRY = Entry(CHANGE, "d" * 64, {"lb1": "a", "lb2": "b"}, frozenset({"lb1", "lb2"}), TEXT)


def test_it_is_there_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.begun is None
    journal.begin(ENTRY)
    again = Journal(tmp_path)
    assert again.begun == replace(ENTRY, text=b"")
    assert again.decided is None
    again.decide(ENTRY)
    last = Journal(tmp_path)
    assert (last.begun, last.decided) == (None, replace(ENTRY, decided=True))
    assert last.outcomes == {}, "to have an outcome is to have had the configuration"
    last.settle("lb2")
    assert Journal(tmp_path).decided == replace(ENTRY, decided=True, left=frozenset({"lb1"}))
    last.settle("lb1")
    assert Journal(tmp_path).decided is None
    assert Journal(tmp_path).outcomes == {CHANGE.id: Standing.CONFIRMED}
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_what_is_pending_outlives_a_change_that_is_given_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.decide(ENTRY)
    other = replace(ENTRY, change=replace(CHANGE, id="f" * 16))
    journal.begin(other)
    journal.abandon(other.change.id)
    assert Journal(tmp_path).decided == replace(ENTRY, decided=True)
    journal.begin(other)
    journal.decide(other)
    assert Journal(tmp_path).decided == replace(other, decided=True)
    assert Journal(tmp_path).outcomes[CHANGE.id] is Standing.CONFIRMED
    journal.hand_over(other.change.id)
    assert Journal(tmp_path).decided is not None, "what is decided stays with who decided it"


@pytest.mark.parametrize("part", range(0, 100, 7))
def test_a_torn_file_is_an_error(tmp_path: Path, part: int) -> None:
    Journal(tmp_path).decide(ENTRY)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size * part // 100])
    journal = Journal(tmp_path)
    for _ in range(2):
        with pytest.raises(StateError, match="damaged"):
            journal.decided  # noqa: B018
    with pytest.raises(StateError):
        journal.begin(ENTRY)
    path.unlink()
    assert journal.decided is None


def test_a_later_version_is_an_error(tmp_path: Path) -> None:
    Journal(tmp_path).decide(ENTRY)
    path = tmp_path / NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(StateError, match="damaged"):
        Journal(tmp_path).decided  # noqa: B018


@pytest.mark.parametrize("late", [False, True], ids=["before", "after the new name"])
def test_a_decision_that_the_disk_refuses_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    journal, write = Journal(tmp_path), Directory.write
    journal.begin(ENTRY)
    failures = iter([True, False])

    def fail(files: Directory, name: str, text: bytes, mode: int = 0o644) -> None:
        if not next(failures):
            write(files, name, text, mode)
            return
        if late:
            write(files, name, text, mode)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Directory, "write", fail)
    with pytest.raises(StateError, match="No space left"):
        journal.decide(ENTRY)
    assert journal.decided is None
    assert Journal(tmp_path).decided is None
    assert Journal(tmp_path).begun is not None


def test_outcomes_are_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(70):
        journal.note(f"{number:016x}", Standing.ABORTED)
    assert len(journal.outcomes) == 50
    assert f"{69:016x}" in Journal(tmp_path).outcomes
