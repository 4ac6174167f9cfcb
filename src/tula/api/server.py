"""Serves the API on a unix socket, in the daemon's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tula.api.app import make_app
from tula.engine.audit import AuditLog
from tula.engine.callers import GatewayProcesses
from tula.engine.control import SOCKET, Control

_MODE = 0o660
_UCRED = struct.Struct("3i")
_BACKLOG = 128
_ASIDE = "socket"
_LONGEST = 107
"""Bytes of a socket's path (unix(7))."""
_GRACE = 3
"""Seconds that requests have to end in when the daemon ends."""


class ServeError(Exception):
    """The socket cannot be made."""


class _Protocol(H11Protocol):
    """Tells the app who is at the other end: as its ``client``, the user id and the process."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        # unix(7): a struct ucred, as of when the other end connected.
        found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(found)
        self.client = (str(uid), pid)


class _Server(uvicorn.Server):
    """Signals are the daemon's, not uvicorn's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    control: Control,
    run_dir: Path,
    group: str | None = None,
    ready: asyncio.Event | None = None,
    gateways: GatewayProcesses | None = None,
    audit: AuditLog | None = None,
) -> None:
    """Answers on ``tula.sock`` in the run directory until it is cancelled, then removes it.

    Who may write to the socket may do everything: its owner, and ``group`` if one is given.
    ``ready`` is set once clients can connect. The word of ``gateways`` counts about who asks, and
    ``audit`` is told of changes. Raises ServeError.
    """
    path = run_dir / SOCKET
    listening = listen(path, group)
    made = path.lstat().st_ino
    app = make_app(control, gateways, audit)
    config = uvicorn.Config(
        app,
        loop="none",
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    work = asyncio.create_task(server.serve(sockets=[listening]), name="api")
    if ready is not None:
        ready.set()
    try:
        await asyncio.shield(work)
    finally:
        # Before the requests end: who comes now shall find no daemon, not one that goes.
        _remove(path, made)
        app.state.streams.close()
        server.should_exit = True
        await work


def listen(path: Path, group: str | None) -> socket.socket:
    """A socket that listens at the path with its mode and group from the first moment on.

    A socket that a daemon left behind is replaced. Raises ServeError, also when one answers there.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise ServeError(f"{path}: too long for a unix socket; choose another --run-dir")
    try:
        gid = -1 if group is None else grp.getgrnam(group).gr_gid
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if _answers(path):
            raise ServeError(f"{path}: a daemon runs here already")
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with _private(path) as private:
                made.bind(f"/proc/self/fd/{private}/{_ASIDE}")
                os.chown(_ASIDE, -1, gid, dir_fd=private, follow_symlinks=False)
                os.chmod(_ASIDE, _MODE, dir_fd=private)
                made.listen(_BACKLOG)
                os.replace(_ASIDE, path, src_dir_fd=private)
        except BaseException:
            made.close()
            raise
    except LookupError:
        raise ServeError(f"{path}: there is no group {group!r} here") from None
    except OSError as error:
        raise ServeError(f"{path}: {error.strerror or error}") from error
    return made


@contextlib.contextmanager
def _private(path: Path) -> Iterator[int]:
    """A directory beside the path that only this user can change, by its descriptor.

    Root may listen in a directory that belongs to the daemon's user, who could put a link in the
    place of whatever root made there before root changes its owner.
    """
    place = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        if (found.st_uid, found.st_mode & 0o777) != (os.geteuid(), 0o700):
            raise ServeError(f"{place} was replaced by another directory")
        yield directory
    finally:
        with contextlib.suppress(OSError):
            os.unlink(_ASIDE, dir_fd=directory)
        os.close(directory)
        with contextlib.suppress(OSError):
            place.rmdir()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1)
        try:
            asking.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def _remove(path: Path, made: int) -> None:
    """Unless another daemon has put its own there meanwhile."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == made:
            path.unlink()
