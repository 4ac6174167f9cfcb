"""What the gateway makes of a daemon that answers early, late, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tula.api.gateway.answers import Answer, RefusalError
from tula.api.gateway.upstream import Forwarded, Upstream

Daemon = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"


def ask(path: Path, daemon: Daemon, request: Forwarded) -> Answer:
    async def run() -> Answer:
        async with await asyncio.start_unix_server(daemon, path):
            return await Upstream(str(path)).ask(request)

    return asyncio.run(run())


@pytest.mark.parametrize("size", [0, 10, 8 << 20])
def test_an_answer_that_does_not_wait_for_the_body(tmp_path: Path, size: int) -> None:
    """As where a token's scope is not enough: nothing of the body is read."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    for _ in range(20):
        found = ask(tmp_path / "s", refuse, Forwarded("POST", "/apply", (), b"x" * size))
        assert (found.status, found.body) == (403, b"no")


def test_a_body_arrives_whole(tmp_path: Path) -> None:
    taken = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken.append(await reader.readexactly(8 << 20))
        writer.write(ANSWER)
        writer.close()

    body = bytes(range(256)) * (8 << 12)
    assert ask(tmp_path / "s", take, Forwarded("POST", "/apply", (), body)).status == 403
    assert taken == [body]


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", b"SSH-2.0\r\n"]
)
def test_no_answer(tmp_path: Path, said: bytes) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    with pytest.raises(RefusalError) as ended:
        ask(tmp_path / "s", end, Forwarded("GET", "/status", ()))
    assert ended.value.answer.status == 502
    assert b"it ended before it answered" in ended.value.answer.body
    with pytest.raises(RefusalError) as absent:
        asyncio.run(Upstream(str(tmp_path / "none")).ask(Forwarded("GET", "/status", ())))
    assert b"No such file" in absent.value.answer.body
