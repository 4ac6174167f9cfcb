"""The state directory: whole files or the old ones, and one writer at a time."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from support.locks import waiting_for
from tula.dataplane.nft.ids import Ids
from tula.engine.store import ChangedSysctl, Remembered, Store
from tula.kernel.clock import SystemClock
from tula.kernel.nft_memory import dump_ids, recall_ids
from tula.model.errors import StateError
from tula.model.stats import Count

IDS = Ids({"web": 1, "api": 9}, {"10.0.0.1": 3}, {"web": 2}, next_service=10, next_backend=4)
MEMORY = Remembered(path=dump_ids(IDS, SystemClock()), retired={"web": {"10.0.0.2": Count(5, 600)}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "deep" / "state")


def test_what_is_saved_is_read(store: Store) -> None:
    assert store.remembered() == Remembered()
    store.save_remembered(MEMORY)
    again = Store(store.directory).remembered()
    assert again == MEMORY
    assert recall_ids(again.path, SystemClock()) == IDS


def test_a_document_is_accepted_letter_by_letter(store: Store) -> None:
    assert store.configuration() is None
    text = "services: {}  # ümläute\r\n".encode()
    accept = store.prepare_configuration(text)
    assert store.configuration() is None, "prepared is not accepted"
    accept()
    assert store.configuration() == text
    inode = (store.directory / "document.yaml").stat().st_ino
    store.prepare_configuration(text)()
    assert (store.directory / "document.yaml").stat().st_ino == inode, "the same is left alone"


def test_a_cleared_document_is_put_aside(store: Store) -> None:
    store.clear_configuration()
    store.prepare_configuration(b"first")()
    store.clear_configuration()
    assert store.configuration() is None
    assert (store.directory / "cleared.yaml").read_bytes() == b"first"


class CrashError(BaseException):
    """The end of the process, as far as the store can tell."""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_before_the_rename_leaves_the_old(
    store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store.prepare_configuration(b"old")()
    store.save_remembered(MEMORY)

    def crash(*_: object, **__: object) -> None:
        raise CrashError

    with monkeypatch.context() as patched:
        patched.setattr(os, moment, crash)
        with pytest.raises(CrashError):
            store.save_remembered(Remembered())
        with pytest.raises(CrashError):
            store.prepare_configuration(b"new")()
    after = Store(store.directory)
    assert (after.configuration(), after.remembered()) == (b"old", MEMORY)
    after.prepare_configuration(b"new")()
    after.save_remembered(Remembered())
    assert (after.configuration(), after.remembered()) == (b"new", Remembered())
    assert not list(store.directory.glob(".*")), "what the crash left is removed"


def test_a_file_is_on_the_disk_before_it_gets_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bytes | None]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        what = Path(f"/proc/self/fd/{descriptor}").readlink().name
        seen.append((what, store.configuration()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    store.prepare_configuration(b"text")()
    names = [re.sub(r"\.[0-9a-f]{16}\.new", "", name) for name, _ in seen]
    written = [".document.yaml", ".accepted-000001.yaml", ".accepted-000001.json"]
    assert names == [*written, *["state"] * 3]
    assert [text for _, text in seen] == [None] * 3 + [b"text"] * 3


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
        while not waiting_for(store.directory / "lock"):
            assert thread.is_alive()
        assert not inside.is_set()
    assert done.wait(10)
    thread.join()


def test_who_waits_too_long_is_told_who_has_the_lock(store: Store) -> None:
    impatient = Store(store.directory, lock_timeout=0)
    wanted = rf"{store.directory}: lock is held by process {os.getpid()} \(.+\); try again"
    with store.locked(), pytest.raises(StateError, match=wanted), impatient.locked():
        pytest.fail("two at once")
    with impatient.locked():
        pass


def test_a_daemon_waits_for_no_lock_and_keeps_commands_out(store: Store) -> None:
    command = Store(store.directory)
    with store.owned():
        with store.locked(), store.locked():
            pass
        with pytest.raises(StateError, match="a daemon is starting or stopping; try again"):
            command.locked().__enter__()
        with pytest.raises(StateError, match="a daemon runs here already"):
            command.owned().__enter__()
    with command.locked():
        assert not store.has_daemon()


def test_a_daemon_waits_for_the_command_before_it(store: Store) -> None:
    impatient = Store(store.directory, lock_timeout=0)
    with store.locked(), pytest.raises(StateError, match="lock is held by"), impatient.owned():
        pytest.fail("a daemon beside a command")


def test_sysctls_that_are_not_tulas_are_not_put_back(store: Store) -> None:
    """Root does that, by a file that the daemon's user can write."""
    own = {"net/ipv4/conf/eth0.7/rp_filter": ChangedSysctl("1", "2")}
    store.save_sysctls(
        {
            **own,
            "kernel/core_pattern": ChangedSysctl("1", "2"),
            "net/ipv4/conf/../rp_filter": ChangedSysctl("1", "2"),
            "net/ipv4/conf/eth0/../all/rp_filter": ChangedSysctl("1", "2"),
            "../../etc/passwd": ChangedSysctl("1", "2"),
            "net/ipv4/conf/eth0/accept_local": ChangedSysctl("|/bin/sh", "1"),
        }
    )
    assert store.sysctls() == own


def test_the_lock_is_free_again_after_a_failure(store: Store) -> None:
    with suppress(ZeroDivisionError), store.locked():
        _ = 1 / 0
    with store.locked():
        pass


def test_a_lock_that_is_a_link_is_not_followed_and_says_what_to_do(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "state"
    directory.mkdir()
    (directory / "lock").symlink_to(victim)
    told = "lock is a symbolic link; remove it, or choose another --state-dir$"
    with pytest.raises(StateError, match=told), Store(directory).locked():
        pytest.fail("locked nothing")
    assert victim.read_text() == "precious"


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
        store.configuration()
