"""The API on its socket: rights, a stale socket, two daemons, and the end."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.fake_control import FakeControl
from tula.api.server import ServeError, listen, serve
from tula.users import user_name


@asynccontextmanager
async def served(directory: Path, control: FakeControl | None = None) -> AsyncIterator[Path]:
    """The path of a socket that answers."""
    ready = asyncio.Event()
    task = asyncio.create_task(serve(control or FakeControl(), directory, None, ready))
    await asyncio.wait_for(ready.wait(), 10)
    try:
        yield directory / "tula.sock"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ask(path: Path, request: str = "GET /api/v1/health HTTP/1.0\r\n\r\n") -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request.encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_it_answers_and_removes_its_socket(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path / "run") as path:
            assert b"200 OK" in await ask(path)
            status = path.stat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o660
        assert list(path.parent.iterdir()) == []

    asyncio.run(main())


def test_a_client_that_stays_does_not_hold_the_end_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as path:
            _, writer = await asyncio.open_unix_connection(path)
        writer.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tula.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def main() -> None:
        async with served(tmp_path):
            assert b"200 OK" in await ask(path)

    asyncio.run(main())


def test_a_daemon_that_runs_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as path:
            with pytest.raises(ServeError, match="a daemon runs here already"):
                await serve(FakeControl(), tmp_path)
            assert b"200 OK" in await ask(path)

    asyncio.run(main())


def test_the_umask_does_not_matter_and_stays(tmp_path: Path) -> None:
    for mask in (0, 0o077, 0o022):
        before = os.umask(mask)
        try:
            with listen(tmp_path / "tula.sock", None):
                assert stat.S_IMODE((tmp_path / "tula.sock").stat().st_mode) == 0o660
            assert os.umask(mask) == mask
        finally:
            os.umask(before)


def test_the_group(tmp_path: Path) -> None:
    name = grp.getgrgid(os.getgid()).gr_name
    with listen(tmp_path / "tula.sock", name):
        assert (tmp_path / "tula.sock").stat().st_gid == os.getgid()
    with pytest.raises(ServeError, match="there is no group 'frobs' here"):
        listen(tmp_path / "other.sock", "frobs")
    assert [path.name for path in tmp_path.iterdir()] == ["tula.sock"]


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServeError, match="File exists"):
        listen(tmp_path / "file" / "tula.sock", None)
    with pytest.raises(ServeError, match="too long"):
        listen(tmp_path / ("x" * 120) / "tula.sock", None)


def test_the_daemon_knows_who_asks(tmp_path: Path) -> None:
    async def main() -> None:
        control = FakeControl()
        async with served(tmp_path, control) as path:
            request = "POST /api/v1/services/web/backends/b1/enable HTTP/1.0\r\n\r\n"
            assert b"200 OK" in await ask(path, request)
        assert control.by == user_name(os.geteuid())

    asyncio.run(main())
