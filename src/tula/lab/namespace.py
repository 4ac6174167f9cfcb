"""Network namespaces held open by a descriptor, and entering them.

A namespace without a name lives as long as something refers to it: a descriptor, a thread, a
socket or a process. The lab holds a descriptor, so when its process ends, however it ends, the
kernel removes the namespace with its interfaces, addresses and tables.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tula.lab.guard import (
    LabError,
    NamespaceId,
    namespace_id,
    require_foreign_namespace,
    require_root,
)

NAMED = Path("/run/netns")
"""Where ``ip netns`` looks for namespaces."""

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_HERE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """One libc call that returns 0 or sets errno."""
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class Namespace:
    """One network namespace, open."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor; it is closed, with a LabError, if it is off limits."""
        self._descriptor = descriptor
        try:
            self.id: NamespaceId = namespace_id(descriptor)
            require_foreign_namespace(self.id)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls) -> Self:
        """A new, anonymous namespace; the calling thread stays where it was."""
        require_root()
        home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", _CLONE_NEWNET)  # this thread only
            try:
                descriptor = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _call("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)
        return cls(descriptor)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """An existing one, such as ``/run/netns/NAME`` or ``/proc/PID/ns/net``."""
        require_root()
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise LabError(f"no network namespace at {path}: {error.strerror}") from None

    def fileno(self) -> int:
        """The descriptor, for netlink's net_ns_fd."""
        if self._descriptor < 0:
            raise LabError("the lab is closed, and its namespaces are gone")
        return self._descriptor

    @property
    def is_open(self) -> bool:
        """Whether it can be entered: not after ``close``."""
        return self._descriptor >= 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Move the calling thread in for the block, and always back out.

        Sockets and child processes that the thread creates in the block belong to the namespace.
        Must not span an ``await``: other tasks of the thread would be moved too.
        """
        home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self.fileno(), _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)

    def publish(self, name: str) -> None:
        """Bind it to ``/run/netns/NAME``: it outlives this process until ``withdraw``."""
        NAMED.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = NAMED / name
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            raise LabError(f"a namespace named {name} already exists: {path}") from None
        with self.enter():
            try:
                _call("mount", _HERE.encode(), os.fsencode(path), b"none", _MS_BIND, None)
            except OSError:
                path.unlink()
                raise

    def close(self) -> None:
        """Close the descriptor; may be called twice."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def withdraw(name: str) -> bool:
    """Undo ``publish``; False if there is no such name."""
    path = NAMED / name
    if not path.exists():
        return False
    try:
        _call("umount2", os.fsencode(path), _MNT_DETACH)
    except OSError as error:
        if error.errno != 22:  # EINVAL: not a mount, left behind by a crash
            raise
    path.unlink()
    return True
