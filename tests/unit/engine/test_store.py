"""The state directory: whole files or the old ones, and one writer at a time."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tula.dataplane.nft.ids import Ids, recall_ids
from tula.engine.store import Remembered, Store
from tula.model.errors import StateError
from tula.model.stats import Count

IDS = Ids({"web": 1, "api": 9}, {"10.0.0.1": 3}, {"web": 2}, next_service=10, next_backend=4)
MEMORY = Remembered(path=IDS.dump(), retired={"web": {"10.0.0.2": Count(5, 600)}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "state")


def test_what_is_saved_is_read(store: Store) -> None:
    assert store.remembered() == Remembered()
    store.save_remembered(MEMORY)
    again = Store(store.directory).remembered()
    assert again == MEMORY
    assert recall_ids(again.path) == IDS


def test_a_document_is_accepted_letter_by_letter(store: Store) -> None:
    assert store.document() is None
    text = "services: {}  # ümläute\r\n".encode()
    accept = store.prepare_document(text)
    assert store.document() is None, "prepared is not accepted"
    accept()
    assert store.document() == text
    inode = (store.directory / "document.yaml").stat().st_ino
    store.prepare_document(text)()
    assert (store.directory / "document.yaml").stat().st_ino == inode, "the same is left alone"


def test_a_cleared_document_is_put_aside(store: Store) -> None:
    store.clear_document()
    store.prepare_document(b"first")()
    store.clear_document()
    assert store.document() is None
    assert (store.directory / "cleared.yaml").read_bytes() == b"first"


class CrashError(BaseException):
    """The end of the process, as far as the store can tell."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_before_the_rename_leaves_the_old(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store.prepare_document(b"old")()
    store.save_remembered(MEMORY)

    def crash(*_: object) -> None:
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync", crash) if moment == "fsync" else (Path, "replace", crash)))
        with pytest.raises(CrashError):
            store.save_remembered(Remembered())
        with pytest.raises(CrashError):
            store.prepare_document(b"new")()
    after = Store(store.directory)
    assert (after.document(), after.remembered()) == (b"old", MEMORY)
    after.prepare_document(b"new")()
    after.save_remembered(Remembered())
    assert (after.document(), after.remembered()) == (b"new", Remembered())


def test_a_file_is_on_the_disk_before_it_gets_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes | None]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        what = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((what, store.document()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    store.prepare_document(b"text")()
    assert seen == [(".document.yaml.new", None), ("state", b"text")]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"services": {"web": "one"}}',
        b'{"services": {"web": 1e999}}',
        b'{"version": 1, "services": [], "backends": {}}',
        b'{"version": 1, "services": {"web": 1}, "past": {"web": {"10.0.0.1": [1]}}}',
    ],
)
def test_a_damaged_memory_is_no_memory(store: Store, damage: bytes) -> None:
    store.save_remembered(MEMORY)
    (store.directory / "memory.json").write_bytes(damage)
    assert store.remembered() == Remembered()


def test_one_writer_at_a_time(store: Store) -> None:
    inside, done = threading.Event(), threading.Event()

    def second() -> None:
        with Store(store.directory).locked():
            inside.set()
        done.set()

    with store.locked():
        thread = threading.Thread(target=second)
        thread.start()
        waiting = f":{(store.directory / 'lock').stat().st_ino} "
        while not any(  # the arrow is a waiter (proc_locks(5))
            "->" in line and waiting in line
            for line in Path("/proc/locks").read_text().splitlines()
        ):
            assert thread.is_alive()
        assert not inside.is_set()
    assert done.wait(10)
    thread.join()


def test_the_lock_is_free_again_after_a_failure(store: Store) -> None:
    with suppress(ZeroDivisionError), store.locked():
        _ = 1 / 0
    with store.locked():
        pass


@pytest.mark.parametrize("place", ["a file", "below a file", "lock is a directory"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    directory = {"a file": file, "below a file": file / "state"}.get(place, tmp_path / "state")
    if place == "lock is a directory":
        (directory / "lock").mkdir(parents=True)
    named = pytest.raises(StateError, match=f"{directory}: .*; choose another --state-dir")
    with named, Store(directory).locked():
        pytest.fail("locked nothing")


def test_a_document_that_cannot_be_read_is_named(store: Store) -> None:
    (store.directory / "document.yaml").mkdir(parents=True)
    with pytest.raises(StateError, match=r"document\.yaml: Is a directory"):
        store.document()
