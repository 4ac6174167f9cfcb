"""Files of one directory, replaced as a whole and locked, though a less privileged user owns it.

Root works below ``/var/lib/tula``, which belongs to the daemon's user. So nothing here follows a
link that this user could have put there, all is done relative to the opened directory, temporary
names cannot be guessed, and only a file's owner may open its lock: who can open a file can hold
a lock on it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL = 0.02
"""Seconds between two tries to get a lock: flock(2) has no timeout."""
_BASE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block its opener
_REMOVE = "remove it"
_READ_ONLY = frozenset({errno.EACCES, errno.EROFS, errno.EPERM})


def describe_error(error: OSError) -> str:
    """The error of one of a directory's methods, with what to do about it."""
    reason = error.strerror or str(error)
    separator = ", or " if reason.endswith(_REMOVE) else "; "
    return f"{reason}{separator}choose another --state-dir"


class Directory:
    """One directory; it is made when something is written. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        """The content of a regular file."""
        with self._opened() as directory:
            file = _open_there(name, os.O_RDONLY, directory)
        with os.fdopen(file, "rb") as handle:
            return handle.read()

    def names(self) -> list[str]:
        """The names of what is in the directory."""
        with self._opened() as directory, _readable(directory) as reopened:
            return [entry.name for entry in os.scandir(reopened)]

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        with self._opened() as directory:
            return os.stat(name, dir_fd=directory, follow_symlinks=False).st_size

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since the epoch."""
        with self._opened() as directory:
            return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime

    def write(self, name: str, text: bytes, mode: int = 0o644) -> None:
        """Replaces a file: a crash leaves the old one or the new one."""
        self.prepare(name, text, mode)()

    def prepare(self, name: str, text: bytes, mode: int = 0o644) -> Callable[[], None]:
        """Brings the text to the disk under another name; the result renames it.

        What an earlier process prepared for this name and never renamed is removed: no two
        processes may prepare the same file at the same time.
        """
        _make(self.path)
        aside = f".{name}.{secrets.token_hex(8)}.new"
        with self._opened() as directory:
            _remove_left(name, directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BASE
            file = os.open(aside, flags, 0o600, dir_fd=directory)
            try:
                with os.fdopen(file, "wb") as handle:
                    os.fchmod(file, mode)
                    _give_to_owner(file, directory)
                    handle.write(text)
                    handle.flush()
                    os.fsync(file)
            except OSError:
                _unlink(aside, directory)
                raise

        def rename() -> None:
            self.rename(aside, name)

        return rename

    def append(self, name: str, text: bytes, *, sync: bool = False) -> None:
        """Appends lines to a file, its owner's alone; with ``sync``, to the disk.

        All of the text or nothing: what a full disk took in part is taken back. A line that a
        crash left without its end is ended first. Not for several writers at a time.
        """
        _make(self.path)
        with self._opened() as directory:
            file = _open_lines(name, directory)
            try:
                size = os.fstat(file).st_size
                if size and os.pread(file, 1, size - 1) != b"\n":
                    text = b"\n" + text
                _write_whole(file, text, size)
                if sync:
                    os.fdatasync(file)
            finally:
                os.close(file)
            if sync and not size:  # its name, too
                with _readable(directory) as reopened:
                    os.fsync(reopened)

    def rename(self, old: str, new: str) -> None:
        """Renames a file of the directory to another name in it."""
        with self._opened() as directory:
            os.replace(old, new, src_dir_fd=directory, dst_dir_fd=directory)
            with _readable(directory) as reopened:
                os.fsync(reopened)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError), self._opened() as directory:
            os.unlink(name, dir_fd=directory)

    @contextmanager
    def lock(
        self, name: str, timeout: float, give_up: Callable[[], None] = lambda: None
    ) -> Iterator[int]:
        """Holds an exclusive lock on a file, and yields its descriptor.

        Raises TimeoutError that names who may hold it, after ``timeout`` seconds; ``give_up`` is
        called while it waits, and may raise. The file stays: whoever removed it would let two in.
        """
        _make(self.path)
        end = time.monotonic() + timeout
        with self._opened() as directory:
            file = _open_lock(name, directory)
            try:
                while not _try_lock(file, name, directory):
                    give_up()
                    if time.monotonic() >= end:
                        holder = _describe_holder(os.fstat(file).st_ino)
                        raise TimeoutError(
                            errno.ETIMEDOUT, f"{name} is held by {holder}; try again"
                        )
                    time.sleep(_POLL)
                    if _replaced(file, name, directory):
                        os.close(file)
                        file = _open_lock(name, directory)
                yield file
            finally:
                os.close(file)

    def is_locked(self, name: str) -> bool:
        """Whether somebody holds the lock, as far as this user can tell."""
        with self._opened() as directory:
            try:
                file = _open_there(name, os.O_RDONLY, directory)
            except PermissionError:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                return _holder(found.st_ino) is not None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The directory's descriptor, unless others could have put their own in its place."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        link = self.path.lstat()
        if not stat.S_ISLNK(link.st_mode):
            flags |= os.O_NOFOLLOW
        elif link.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, f"{self.path} is a symbolic link of user {link.st_uid}")
        directory = os.open(self.path, flags)
        try:
            if os.fstat(directory).st_mode & stat.S_IWOTH:
                text = f"every user may write to {self.path} (chmod o-w {self.path})"
                raise OSError(errno.EPERM, text)
            yield directory
        finally:
            os.close(directory)


def _make(path: Path) -> None:
    """Makes a directory and those above it, none of them open to every user by the umask."""
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(mode=0o755, exist_ok=True)


def _open_there(name: str, flags: int, directory: int) -> int:
    """Opens a regular file that exists."""
    try:
        file = os.open(name, flags | _BASE, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, f"{name} is a symbolic link; {_REMOVE}") from None
        raise
    kind = os.fstat(file).st_mode
    if not stat.S_ISREG(kind):
        os.close(file)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, f"{name} is not a regular file; {_REMOVE}")
    return file


def _open_lines(name: str, directory: int) -> int:
    """Opens a file to append to, made if need be, for its owner alone."""
    flags = os.O_RDWR | os.O_APPEND
    try:
        file = _open_there(name, flags, directory)
    except FileNotFoundError:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL | _BASE, 0o600, dir_fd=directory)
        _give_to_owner(file, directory)
        return file
    if os.fstat(file).st_nlink != 1:  # it may be somebody else's file, linked to here
        os.close(file)
        raise OSError(errno.EMLINK, f"{name} has a second name; {_REMOVE}")
    return file


def _write_whole(file: int, text: bytes, size: int) -> None:
    """Writes all, or leaves the file at ``size``."""
    left = memoryview(text)
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def _open_lock(name: str, directory: int) -> int:
    """Opens the file of a lock, made if need be, for its owner alone."""
    while True:
        try:
            file = _open_there(name, os.O_RDWR, directory)
        except FileNotFoundError:
            made = _create_lock(name, directory)
            if made is None:
                continue
            return made
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            # A disk that has failed, or a file that root left: who only locks need not write.
            file = _open_there(name, os.O_RDONLY, directory)
        _tighten(file, directory)
        return file


def _create_lock(name: str, directory: int) -> int | None:
    """Makes the file, which has its mode and owner before its name; None if it is there now."""
    aside = f".{name}.{secrets.token_hex(8)}.new"
    file = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BASE, 0o600, dir_fd=directory)
    try:
        os.fchmod(file, 0o600)
        _give_to_owner(file, directory)
        os.link(aside, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    finally:
        _unlink(aside, directory)
    return file


def _tighten(file: int, directory: int) -> None:
    """Closes a lock of an earlier version, that everybody could open, to all but its owner."""
    found = os.fstat(file)
    # With a second name it may be somebody else's file, linked to here.
    if found.st_nlink == 1:
        with suppress(OSError):  # not its owner
            if stat.S_IMODE(found.st_mode) != 0o600:
                os.fchmod(file, 0o600)
            _give_to_owner(file, directory)


def _give_to_owner(file: int, directory: int) -> None:
    """What root makes in the directory of another user is that user's."""
    owner = os.fstat(directory)
    if os.geteuid() == 0 and os.fstat(file).st_uid != owner.st_uid:
        # Not where root lacks CAP_CHOWN, or its user namespace lacks the owner.
        with suppress(OSError):
            os.fchown(file, owner.st_uid, owner.st_gid)


def _try_lock(file: int, name: str, directory: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not _replaced(file, name, directory):
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _replaced(file: int, name: str, directory: int) -> bool:
    """Whether the name is no longer that of this file: a lock on it would keep nobody out."""
    try:
        now = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    held = os.fstat(file)
    return (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino)


def _holder(inode: int) -> int | None:
    """The process that took a flock on this inode, by /proc/locks (proc_locks(5))."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return None


def _describe_holder(inode: int) -> str:
    pid = _holder(inode)
    if pid is None:
        return "another process"
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # a lock goes to those who inherit the open file
        return f"a program that process {pid} started"
    return f"process {pid} ({name})"


def _remove_left(name: str, directory: int) -> None:
    left = re.compile(re.escape(f".{name}.") + r"([0-9a-f]{16}\.)?new")
    with _readable(directory) as reopened:
        names = [entry.name for entry in os.scandir(reopened)]
    for found in filter(left.fullmatch, names):
        _unlink(found, directory)


@contextmanager
def _readable(directory: int) -> Iterator[int]:
    """The same directory for what O_PATH does not allow: to list it, and fsync."""
    reopened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield reopened
    finally:
        os.close(reopened)


def _unlink(name: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)
