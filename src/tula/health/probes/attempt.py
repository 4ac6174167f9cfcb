"""One probe under way: what every kind of probe is given, and how it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address

from tula.health.check import FailureKind
from tula.kernel.probe_sockets import ProbeSockets
from tula.model.advice import Words
from tula.model.health import ProbeTarget

LIMIT = 65536
"""Bytes of an answer that are read at most."""

_OWN_ERRORS = frozenset(
    {errno.EADDRNOTAVAIL, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
)
_BROKEN = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
_NO_LINGER = struct.pack("ii", 1, 0)


_ANYWHERE = {4: ip_address("0.0.0.0"), 6: ip_address("::")}


class Failure(Exception):  # noqa: N818 - it tells of the backend, and is not an error
    """The backend failed the probe; the text says how."""

    def __init__(self, evidence: str, kind: FailureKind = FailureKind.ANSWER) -> None:
        super().__init__(evidence)
        self.evidence = evidence
        self.kind = kind


class NotSentError(Exception):
    """The probe could not be sent for a reason of this machine's own."""


class Attempt:
    """One probe under way: where it goes, and how far it has come.

    ``stage`` begins the message when the time is over. ``silence_passes``: then it has passed.
    ``warning`` is what the probe found beside its verdict, ``words`` what the answer says if it
    passes.
    """

    __slots__ = (
        "environment",
        "loop",
        "silence_passes",
        "sockets",
        "stage",
        "target",
        "warning",
        "words",
    )

    def __init__(
        self,
        target: ProbeTarget,
        sockets: ProbeSockets,
        environment: Mapping[str, str],
    ) -> None:
        self.target = target
        self.sockets = sockets
        self.environment = environment
        self.loop = asyncio.get_running_loop()
        self.stage = "no answer"
        self.silence_passes = False
        self.warning = ""
        self.words: Words | None = None

    @contextmanager
    def opened(self, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
        """A socket for the target, closed at the end."""
        opened = self.sockets.open(self.target, kind, protocol)
        try:
            yield opened
        finally:
            if kind == socket.SOCK_STREAM:
                # A reset in place of FIN: no TIME_WAIT holds the port for a minute, whose ACK
                # would not find the backend either (Linux 6.18 sends it without the priority).
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            opened.close()

    @contextmanager
    def listening(self, version: int, protocol: int) -> Iterator[socket.socket]:
        """A raw socket that receives all that comes to this machine of a protocol."""
        with self.sockets.open(
            ProbeTarget(_ANYWHERE[version]), socket.SOCK_RAW, protocol
        ) as opened:
            yield opened

    async def connect(self, opened: socket.socket) -> None:
        """Connects to the target. Cheaper than the loop's own, which looks names up first."""
        found = opened.connect_ex((str(self.target.address), self.target.port))
        if found == errno.EINPROGRESS:
            connected = self.loop.create_future()
            # By its number: of a socket, the selector makes a text first.
            number = opened.fileno()
            self.loop.add_writer(number, _wake, connected)
            try:
                await connected
            finally:
                self.loop.remove_writer(number)
            found = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if found:
            raise OSError(found, os.strerror(found))

    async def receive(self, opened: socket.socket, size: int) -> bytes:
        """What came, empty at the end."""
        return await self.loop.sock_recv(opened, size)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def failure_of(error: OSError) -> Failure | NotSentError:
    """An error of a socket as what it says of the backend, or of this machine."""
    words = (error.strerror or str(error)).lower()
    if error.errno in _OWN_ERRORS:
        return NotSentError(words)
    if error.errno == errno.ECONNREFUSED:
        return Failure(words, FailureKind.REFUSED)
    # Only whoever had the connection resets it; all else says that there was no route.
    return Failure(words, FailureKind.ANSWER if error.errno in _BROKEN else FailureKind.UNREACHABLE)
