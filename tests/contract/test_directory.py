"""What root does in a directory of another user, and what users of no rights can do to it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tula.api.server import listen
from tula.engine.store import Remembered, Store
from tula.kernel.directory import Directory
from tula.model.errors import StateError

pytestmark = pytest.mark.kernel

DAEMON, NOBODY = 61184, 65534
"""The daemon's user, whose directory it is, and one without any rights."""


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Of this process's rights, what that user has."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The daemon's own, that every user can get to."""
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    tmp_path.chmod(0o755)
    made = tmp_path / "state"
    made.mkdir(mode=0o755)
    os.chown(made, DAEMON, DAEMON)
    return made


@pytest.mark.parametrize("first", [0, DAEMON], ids=["root", "daemon"])
def test_nobody_can_hold_a_lock_up(state: Path, first: int) -> None:
    """Who can open a file can lock it; root and the daemon lock the same one."""
    with acting_as(first), Store(state).locked():
        pass
    with acting_as(NOBODY), pytest.raises(PermissionError):
        (state / "lock").open()
    for user in (0, DAEMON, 0):
        with acting_as(user), Store(state, lock_timeout=0).locked():
            pass


def test_a_lock_that_everybody_could_open_is_closed_to_them(state: Path) -> None:
    """One that root's command of an earlier version made."""
    (state / "lock").touch(mode=0o644)
    with acting_as(NOBODY), (state / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wanted = f"lock is held by process {os.getpid()} "
        with pytest.raises(StateError, match=wanted):
            as_root(state)
    as_root(state)
    found = (state / "lock").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (DAEMON, 0o600)
    with acting_as(DAEMON), Store(state).locked():
        pass


def as_root(state: Path) -> None:
    os.seteuid(0)
    with Store(state, lock_timeout=0).locked():
        pass


def test_what_root_writes_the_daemon_reads_and_replaces(state: Path) -> None:
    with Store(state).locked():
        Store(state).save_remembered(Remembered({"web": 1}))
    with acting_as(DAEMON), Store(state).owned():
        assert Store(state).remembered() == Remembered({"web": 1})
        Store(state).save_remembered(Remembered({"web": 2}))
    assert Store(state).remembered() == Remembered({"web": 2})


def test_a_user_who_may_not_open_the_lock_sees_that_there_is_a_daemon(state: Path) -> None:
    with Store(state).owned(), acting_as(NOBODY):
        assert Store(state).has_daemon()
    with acting_as(NOBODY):
        assert not Store(state).has_daemon()


def test_a_directory_that_is_another_users_link_is_refused(state: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(state)
    os.lchown(link, DAEMON, DAEMON)
    text = f"{link} is a symbolic link of user {DAEMON}"
    with pytest.raises(StateError, match=text), Store(link).locked():
        pass
    with pytest.raises(OSError, match=text):
        Directory(link).write("file", b"")
    assert list(state.iterdir()) == []


def test_the_socket_of_root_in_a_directory_of_the_daemons(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user puts links in the place of all that it can, just before root changes the group."""
    victim, chown = tmp_path / "victim", os.chown
    victim.touch()

    def swapped(*what: Any, **more: Any) -> None:
        with acting_as(DAEMON):
            for place in state.rglob("*"):
                with suppress(OSError):
                    place.rename(tmp_path / "state" / f"{place.name}.away")
                    place.symlink_to(victim)
        chown(*what, **more)

    monkeypatch.setattr(os, "chown", swapped)
    before = victim.stat()
    listen(state / "tula.sock", "daemon").close()
    after = victim.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (0, before.st_gid, before.st_mode)
    found = (state / "tula.sock").lstat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o660)
