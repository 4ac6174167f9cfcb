"""Files in a directory where somebody else may have put links: none is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tula.kernel.directory import Directory

PRECIOUS = b"precious"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = tmp_path / "victim"
    made.write_bytes(PRECIOUS)
    made.chmod(0o644)
    return made


def lock(directory: Directory, name: str = "lock") -> ExitStack:
    """Holds it until the stack is closed; nobody is waited for."""
    with ExitStack() as stack:
        stack.enter_context(directory.lock(name, 0))
        return stack.pop_all()


WRITES: dict[str, Callable[[Directory], object]] = {
    "read": lambda d: d.read("file"),
    "lock": lambda d: lock(d, "file").close(),
    "is locked": lambda d: d.is_locked("file"),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_link_is_refused(state: Path, victim: Path, what: str) -> None:
    (state / "file").symlink_to(victim)
    with pytest.raises(OSError, match="file is a symbolic link; remove it"):
        WRITES[what](Directory(state))
    assert victim.read_bytes() == PRECIOUS
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


@pytest.mark.parametrize("what", WRITES)
def test_what_is_no_file_is_refused_and_does_not_block(state: Path, what: str) -> None:
    os.mkfifo(state / "file")
    with pytest.raises(OSError, match="file is not a regular file; remove it"):
        WRITES[what](Directory(state))


def test_a_link_is_replaced_by_what_is_written(state: Path, victim: Path) -> None:
    (state / "file").symlink_to(victim)
    Directory(state).write("file", b"text")
    assert victim.read_bytes() == PRECIOUS
    assert not (state / "file").is_symlink()
    assert Directory(state).read("file") == b"text"


def test_a_link_of_the_temporary_name_of_earlier_versions(state: Path, victim: Path) -> None:
    (state / ".file.new").symlink_to(victim)
    Directory(state).write("file", b"text")
    assert victim.read_bytes() == PRECIOUS
    assert [path.name for path in state.iterdir()] == ["file"]


def test_temporary_names_differ(state: Path) -> None:
    directory = Directory(state)
    names = set()
    for _ in range(2):
        directory.prepare("file", b"text")
        names |= {path.name for path in state.iterdir()}
    assert len(names) == 2
    assert len(list(state.iterdir())) == 1, "what was never renamed is removed"


def test_a_lock_is_for_its_owner_alone(state: Path) -> None:
    for mask in (0, 0o022, 0o077):
        before = os.umask(mask)
        try:
            lock(Directory(state), f"lock{mask}").close()
        finally:
            os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()} == {0o600}
    assert len(list(state.iterdir())) == 3, "and nothing else is left"


def test_a_lock_of_an_earlier_version_is_tightened(state: Path) -> None:
    (state / "lock").touch(mode=0o644)
    lock(Directory(state)).close()
    assert stat.S_IMODE((state / "lock").stat().st_mode) == 0o600


def test_a_file_with_a_second_name_is_not_tightened(state: Path, victim: Path) -> None:
    """Nothing shows whose file it is."""
    (state / "lock").hardlink_to(victim)
    lock(Directory(state)).close()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


def test_a_lock_that_was_replaced_keeps_nobody_out(state: Path) -> None:
    """Who finds that opens the new one."""
    directory = Directory(state)
    first = lock(directory)
    (state / "lock").unlink()
    second = lock(directory)
    with pytest.raises(TimeoutError, match=f"lock is held by process {os.getpid()} "):
        lock(directory)
    first.close()
    with pytest.raises(TimeoutError):
        lock(directory)
    second.close()
    lock(directory).close()


def test_who_waits_may_give_up(state: Path) -> None:
    def give_up() -> None:
        raise KeyError("enough")

    directory = Directory(state)
    with (
        lock(directory),
        pytest.raises(KeyError, match="enough"),
        directory.lock("lock", 9, give_up),
    ):
        pytest.fail("two at once")


def test_a_directory_that_everybody_may_write_to_is_refused(state: Path) -> None:
    state.chmod(0o777)
    for work in (lambda d: d.write("file", b""), *WRITES.values()):
        with pytest.raises(PermissionError, match=f"every user may write to {state}"):
            work(Directory(state))
    assert list(state.iterdir()) == []


def test_no_directory_is_made_that_everybody_may_write_to(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Directory(tmp_path / "deep" / "state").write("file", b"")
    finally:
        os.umask(before)
    for made in (tmp_path / "deep", tmp_path / "deep" / "state"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o755


def test_the_directory_may_be_a_link_of_root_or_of_this_user(state: Path, tmp_path: Path) -> None:
    """As StateDirectory= is with DynamicUser=, and where it was moved to another disk."""
    (tmp_path / "link").symlink_to(state)
    Directory(tmp_path / "link").write("file", b"text")
    assert (state / "file").read_bytes() == b"text"
