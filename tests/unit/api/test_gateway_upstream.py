"""Requests of many clients that the daemon sees as few; events of one stream for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tula.api.gateway.answers import Answer, RefusalError
from tula.api.gateway.stream import KEPT, Events, parse_place
from tula.api.gateway.upstream import Forwarded, Lane, Upstream

STATUS = Forwarded("GET", "/api/v1/status", ((b"tula-caller", b"grafana"),))
SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"


class Daemon:
    """Answers on a unix socket; ``asked`` are the heads that it got."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "tula.sock")
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.answer = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "x"\r\n\r\nok'
        self.last = 0
        self.happened = asyncio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Upstream]:
        server = await asyncio.start_unix_server(self._serve, self.path)
        async with server:
            yield Upstream(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        try:
            if "/events/stream" in head:
                await self._stream(head, writer)
            elif "/events?" in head:
                body = json.dumps({"epoch": "e", "events": [{"number": self.last}]}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            else:
                await self.go.wait()
                writer.write(self.answer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _stream(self, head: str, writer: asyncio.StreamWriter) -> None:
        sent = int(head.lower().partition("last-event-id: e:")[2].split()[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1000\n\n")
        while True:
            while sent < self.last:
                sent += 1
                writer.write(f'id: e:{sent}\ndata: {{"number": {sent}}}\n\n'.encode())
            await writer.drain()
            await self.happened.wait()
            self.happened.clear()


def run(path: Path, work: Callable[[Daemon, Upstream], Awaitable[None]]) -> None:
    async def main() -> None:
        daemon = Daemon(path)
        async with asyncio.timeout(60), daemon.serving() as upstream:
            await work(daemon, upstream)

    asyncio.run(main())


def test_who_comes_meanwhile_shares_the_next_answer(tmp_path: Path) -> None:
    async def work(daemon: Daemon, upstream: Upstream) -> None:
        first = asyncio.create_task(upstream.ask(STATUS))
        while not daemon.asked:
            await asyncio.sleep(0.01)
        later = [asyncio.create_task(upstream.ask(STATUS)) for _ in range(50)]
        other = asyncio.create_task(upstream.ask(Forwarded("GET", STATUS.target, ())))
        while len(daemon.asked) < 2:
            await asyncio.sleep(0.01)
        later[0].cancel()  # which takes nothing from the others
        assert upstream.busy
        daemon.go.set()
        answers = await asyncio.gather(first, other, *later[1:])
        assert {(each.status, each.body) for each in answers} == {(200, b"ok")}
        assert (b"etag", b'"x"') in answers[0].headers
        assert len(daemon.asked) == 3, "the first, the other's, and one for all who came later"

    run(tmp_path, work)


def test_changes_are_asked_one_by_one(tmp_path: Path) -> None:
    async def work(daemon: Daemon, upstream: Upstream) -> None:
        daemon.go.set()
        change = Forwarded("POST", "/api/v1/confirm", ())
        await asyncio.gather(upstream.ask(change), upstream.ask(change))
        assert len(daemon.asked) == 2
        assert all("content-length: 0" in head.lower() for head in daemon.asked)

    run(tmp_path, work)


def test_too_many_are_told_to_ask_again() -> None:
    async def main() -> None:
        lane = Lane(1, 1)
        async with lane.turn():
            waiting = asyncio.create_task(lane.turn().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(RefusalError) as refused:
                async with lane.turn():
                    pass
            waiting.cancel()
        assert refused.value.answer.status == 503
        assert (b"retry-after", b"1") in refused.value.answer.headers
        async with lane.turn():
            pass

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"", SHORT, b"?\r\n\r\n"])
def test_a_daemon_that_ends_meanwhile_is_a_502(tmp_path: Path, answer: bytes) -> None:
    async def work(daemon: Daemon, upstream: Upstream) -> None:
        daemon.answer = answer
        daemon.go.set()
        with pytest.raises(RefusalError) as refused:
            await upstream.ask(STATUS)
        assert refused.value.answer.status == 502
        upstream.path = "/nowhere"
        with pytest.raises(RefusalError) as refused:
            await upstream.ask(STATUS)
        assert isinstance(refused.value.answer, Answer)
        assert b"No such file" in refused.value.answer.body

    run(tmp_path, work)


async def read(events: Events, last: tuple[str, int] | None, count: int) -> bytes:
    """The first frames."""
    text, following = b"", events.follow(last)
    async for part in following:
        text += part
        if text.count(b"data: ") >= count:
            break
    await following.aclose()
    return text


def test_many_follow_one_stream_each_from_its_place(tmp_path: Path) -> None:
    async def work(daemon: Daemon, upstream: Upstream) -> None:
        daemon.last = KEPT + 500
        events = Events(upstream)
        running = asyncio.create_task(events.run())
        live = [asyncio.create_task(read(events, None, 1)) for _ in range(100)]
        resumed = await read(events, ("e", daemon.last - 2), 2)
        assert resumed.startswith(b"retry: ")
        assert b'{"number": 2499}' in resumed
        assert b"event: gap" not in resumed
        for place in (("e", 3), ("another", 2499), ("e", 99999)):
            late = await read(events, place, 1)
            assert b"event: gap\nid: e:500\n" in late, place
            assert b'"next": 501' in late
        while events.clients < 100:
            await asyncio.sleep(0.01)
        daemon.last += 1
        daemon.happened.set()
        for text in await asyncio.gather(*live):
            assert b"id: e:2500\n\n" in text
            assert b'id: e:2501\ndata: {"number": 2501}\n\n' in text
        assert sum("/events/stream" in head for head in daemon.asked) == 1
        running.cancel()

    run(tmp_path, work)


def test_quiet_streams_show_that_they_live(tmp_path: Path) -> None:
    async def work(_: Daemon, upstream: Upstream) -> None:
        events = Events(upstream)
        running = asyncio.create_task(events.run())
        following = events.follow(None, heartbeat=0.05)
        assert await anext(following) == b"retry: 1000\n\nid: e:0\n\n"
        assert (await anext(following)).startswith(b":")
        await following.aclose()
        assert events.clients == 0
        running.cancel()

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("text", "place"),
    [("abc:7", ("abc", 7)), ("7", None), ("a b:7", None), ("a:-7", None), ("a:" + "9" * 16, None)],
)
def test_places(text: str, place: object) -> None:
    assert parse_place(text) == place
