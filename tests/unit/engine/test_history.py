"""The configurations that were accepted, on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tula.engine.history import KEPT, Record, find_entry
from tula.engine.store import CONFIGURATION, Store
from tula.model.errors import StateError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def accept(store: Store, *texts: bytes) -> None:
    for text in texts:
        store.prepare_configuration(text, Record("alice", "apply", (f"+ {text.decode()}",)))()


def test_what_was_accepted(store: Store) -> None:
    assert store.history() == ()
    accept(store, b"one", b"two", b"two", b"one")
    entries = store.history()
    assert [entry.number for entry in entries] == [1, 2, 3], "the same content again is no news"
    assert {(entry.by, entry.how) for entry in entries} == {("alice", "apply")}
    assert entries[1].changes == ("+ two",)
    assert [store.past_configuration(n) for n in (1, 2, 3)] == [b"one", b"two", b"one"]
    for name in store.directory.iterdir():
        assert name.stat().st_mode & 0o777 == 0o600, name
    with pytest.raises(StateError, match="no accepted configuration 4"):
        store.past_configuration(4)


def test_it_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(store, *(b"%d" % n for n in range(KEPT + 5)))
    assert [entry.number for entry in store.history()] == list(range(6, KEPT + 6))
    monkeypatch.setattr("tula.engine.history.MOST_BYTES", 100)
    accept(store, b"x" * 80, b"y" * 80, b"z" * 80)
    assert len(store.history()) == 2, "the two latest, whatever their size"
    files = [path.name for path in store.directory.iterdir() if path.name.startswith("accepted")]
    assert len(files) == 4


def test_of_an_earlier_version_and_after_a_crash(store: Store) -> None:
    store.directory.mkdir()
    (store.directory / CONFIGURATION).write_bytes(b"old")
    (entry,) = store.history()
    assert (entry.number, entry.how) == (1, "")
    assert store.past_configuration(1) == b"old"
    store.complete_history()
    store.complete_history()
    (entry,) = store.history()
    assert (entry.number, entry.how) == (1, "found at start")
    (store.directory / CONFIGURATION).write_bytes(b"new")  # killed before it was entered
    assert [each.number for each in store.history()] == [1, 2]


DAMAGE = [b"", b"[]", b"\xff", b'{"time": "x", "digest": 1}', b"[" * 9999]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_left_out(store: Store, damage: bytes) -> None:
    accept(store, b"one", b"two", b"three")
    (store.directory / "accepted-000002.json").write_bytes(damage)
    assert [entry.number for entry in store.history()] == [1, 3]
    accept(store, b"four")
    assert [entry.number for entry in store.history()] == [1, 3, 4]


def test_find_entry(store: Store) -> None:
    accept(store, b"one", b"two")
    entries = store.history()
    assert find_entry(entries, None, entries[-1].digest).number == 1
    assert find_entry(entries, 2, entries[-1].digest).number == 2
    with pytest.raises(LookupError, match="kept are 1 to 2"):
        find_entry(entries, 3, "")
    with pytest.raises(LookupError, match="no other configuration"):
        find_entry(entries[:1], None, entries[0].digest)
