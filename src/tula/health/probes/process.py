"""A program as a process group of its own, which never outlives who waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

_KEPT = 4096
_READ = 1 << 20
"""Bytes of output that are read and, but for the first, thrown away; whoever writes more is
stopped."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended: its exit status, negative for a signal, and the beginning of its output.

    ``errors`` is that of its standard error, where the two are read apart.
    """

    status: int
    output: bytes
    flooded: bool = False
    errors: bytes = b""


async def run_group(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    *,
    apart: bool = False,
) -> Ended:
    """Runs a program to its end; when that came or the waiting is cancelled, kills its group.

    ``stdin`` is a file that it reads. ``apart``: what it writes to standard error is no part of
    its output. Raises OSError when it cannot be started.
    """
    loop = asyncio.get_running_loop()
    # Not asyncio's own: before Python 3.12 that takes a thread for each process.
    with ExitStack() as stack:
        output = stack.enter_context(_Output())
        errors = stack.enter_context(_Output()) if apart else output
        try:
            child = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output.writing,
                stderr=errors.writing,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        finally:
            for each in {output, errors}:
                each.end_writing()
        with _Watched(child, loop) as watched:
            outputs = [output, errors] if apart else [output]
            done = loop.create_future()
            loop.add_reader(watched.pidfd, _wake, done)
            for each in outputs:
                loop.add_reader(each.fd, _take, each, loop, done)
            try:
                await done
            finally:
                for each in outputs:
                    loop.remove_reader(each.fd)
                loop.remove_reader(watched.pidfd)
            watched.kill()
            for each in outputs:
                each.take()  # what was written last
            flooded = any(each.flooded for each in outputs)
            status = 0 if flooded else watched.status()
            return Ended(status, bytes(output.kept), flooded, bytes(errors.kept) if apart else b"")


class _Output:
    """A pipe's end that is read, and until the program has it, the one that is written."""

    def __init__(self) -> None:
        self.fd = self.writing = -1
        self.kept = bytearray()
        self.read = 0

    def __enter__(self) -> _Output:
        self.fd, self.writing = os.pipe()
        os.set_blocking(self.fd, False)
        return self

    def __exit__(self, *_: object) -> None:
        self.end_writing()
        os.close(self.fd)

    def end_writing(self) -> None:
        """The program alone writes now, if it was started."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    @property
    def flooded(self) -> bool:
        return self.read > _READ

    def take(self) -> bool:
        """Reads once; False at the end."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return True
        self.read += len(data)
        self.kept += data[: _KEPT - len(self.kept)]
        return bool(data)


class _Watched:
    """A child that is certainly killed, with its group, and reaped when it has died."""

    def __init__(self, child: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._child = child
        self._loop = loop
        self.pidfd = -1

    def __enter__(self) -> _Watched:
        try:
            self.pidfd = os.pidfd_open(self._child.pid)
        except OSError:
            self.kill()
            self._child.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._child.poll() is None:
            # Just killed: it may take a moment, and the loop does not wait for it.
            self._loop.add_reader(self.pidfd, self._reap)
        else:
            os.close(self.pidfd)

    def _reap(self) -> None:
        self._loop.remove_reader(self.pidfd)
        os.close(self.pidfd)
        self._child.wait()

    def kill(self) -> None:
        # Before it is reaped, so that its number is nobody else's.
        if self._child.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def status(self) -> int:
        return self._child.wait()


def _wake(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _take(output: _Output, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
    if not output.take():
        loop.remove_reader(output.fd)
    elif output.flooded:
        _wake(done)
