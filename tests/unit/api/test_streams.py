"""Events as they happen: server-sent events that resume, are bounded, and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.api_daemon import run
from support.fake_control import FakeControl, make_events
from tula.api import streams
from tula.api.server import serve
from tula.api.streams import Streams
from tula.engine.control import BusyError
from tula.engine.event_file import EventFile
from tula.engine.event_log import EventLog
from tula.model.event import EventKind

Sent = tuple[str, str, Any]


class Client:
    """Reads a stream as a browser does: the name, the id and the data of each event."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""
        self.comments = 0
        self.last = ""

    async def next(self) -> Sent:
        while True:
            while b"\n\n" not in self._left:
                self._left += await asyncio.wait_for(anext(self._chunks), 30)
            block, _, self._left = self._left.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            self.comments += "" in fields
            self.last = fields.get("id", self.last)
            if "data" in fields:
                return fields.get("event", "message"), self.last, json.loads(fields["data"])

    async def numbers(self, count: int) -> list[int]:
        return [(await self.next())[2]["number"] for _ in range(count)]

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]


def test_what_happens_is_sent_and_what_was_missed() -> None:
    async def main() -> None:
        control, all_of = FakeControl(happened=make_events(3)), Streams()
        new, old = Client(all_of.open(control, None)), Client(all_of.open(control, ("first", 1)))
        assert await old.numbers(2) == [2, 3]
        coming = asyncio.create_task(new.numbers(2))
        while all_of.count < 2:
            await asyncio.sleep(0.001)
        control.happened = make_events(5)
        assert await coming == [4, 5]
        assert new.last == "first:5"
        name, _, told = await old.next()
        assert (name, told["kind"], told["subject"]) == ("message", "backend-down", "web/b1")
        await new.close()
        await old.close()
        assert all_of.count == 0

    run(main)


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (("first", 1), {"before": "first", "after": 1, "next": 4}),
        (("first", 77), {"before": "first", "after": 77, "next": 4}),
        (("other", 4), {"before": "other", "after": 4, "next": 4}),
    ],
)
def test_a_gap_is_told(last: tuple[str, int], told: dict[str, Any]) -> None:
    async def main() -> None:
        control = FakeControl(happened=make_events(5)[3:])
        client = Client(Streams().open(control, last))
        assert await client.next() == ("gap", "first:3", {"epoch": "first", **told})
        assert await client.numbers(2) == [4, 5]

    run(main)


def test_nothing_is_missing_so_no_gap_is_told() -> None:
    async def main() -> None:
        control = FakeControl(happened=make_events(205))
        client = Client(Streams().open(control, ("first", 3)))
        assert await client.numbers(202) == list(range(4, 206))
        control = FakeControl()
        client = Client(Streams().open(control, ("first", 0), heartbeat=0.01))
        coming = asyncio.create_task(client.next())
        while not client.comments:
            await asyncio.sleep(0.001)
        control.happened = make_events(1)
        assert (await coming)[1] == "first:1"

    run(main)


def test_the_log_of_a_daemon_goes_on_with_the_next(tmp_path: Path) -> None:
    """A client comes back to another daemon with the last id that it has."""

    class Logged(FakeControl):
        def __init__(self, log: EventLog) -> None:
            super().__init__()
            self.log = log

        async def events(self, after: int | None, limit: int, epoch: str | None = None) -> Any:
            return self.log.page(after, limit, epoch)

    async def main() -> None:
        last = ""
        for _ in range(3):
            log = EventLog()
            with log.stored(EventFile(tmp_path)):
                begun = log.last_number
                for _ in range(2):
                    log.add(EventKind.BACKEND_DOWN, "web/b1")
                log.add(EventKind.DAEMON_STOPPED)
                if last:
                    epoch, _, number = last.rpartition(":")
                    client = Client(Streams().open(Logged(log), (epoch, int(number))))
                    assert await client.numbers(3) == [begun + 1, begun + 2, begun + 3]
                last = f"{log.epoch}:{log.last_number}"

    run(main)


def test_there_are_so_many_and_all_end_with_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST", 2)

    async def main() -> None:
        all_of, control = Streams(), FakeControl()
        waiting = [asyncio.create_task(_drained(all_of.open(control, None))) for _ in range(2)]
        while all_of.count < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(BusyError):
            all_of.open(control, None)
        all_of.close()
        await asyncio.gather(*waiting)
        assert all_of.count == 0

    run(main)


async def _drained(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


@pytest.mark.parametrize("wrong", ["7", "a b:1", "first:", "first:-1", "x" * 65 + ":1"])
def test_an_id_that_is_none_is_refused(tmp_path: Path, wrong: str) -> None:
    async def main() -> None:
        async with _Served(tmp_path, FakeControl()) as path:
            assert b" 422 " in (await _ask(path, wrong)).split(b"\r\n")[0]

    run(main)


class _Served:
    """The socket of a daemon, until the block ends."""

    def __init__(self, directory: Path, control: FakeControl) -> None:
        self._ready = asyncio.Event()
        self._path = directory / "tula.sock"
        self._task = asyncio.create_task(serve(control, directory, None, self._ready))

    async def __aenter__(self) -> Path:
        await asyncio.wait_for(self._ready.wait(), 30)
        return self._path

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def _open(path: Path, last: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    resume = f"Last-Event-ID: {last}\r\n" if last else ""
    writer.write(f"GET /api/v1/events/stream HTTP/1.1\r\nHost: tula\r\n{resume}\r\n".encode())
    return reader, writer


async def _ask(path: Path, last: str) -> bytes:
    reader, writer = await _open(path, last)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    return answer


def test_on_the_socket(tmp_path: Path) -> None:
    """A client that goes is noticed, and one that stays does not hold up the daemon's end."""

    async def main() -> None:
        control, following = FakeControl(happened=make_events(2)), []
        original = control.next_event

        async def next_event(after: int) -> None:
            following.append(after)
            try:
                await original(after)
            finally:
                following.remove(after)

        control.next_event = next_event  # type: ignore[method-assign]
        served = _Served(tmp_path, control)
        path = await served.__aenter__()
        reader, writer = await _open(path, "first:1")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        assert b"content-type: text/event-stream" in head.lower()
        assert b"cache-control: no-store" in head.lower()
        await asyncio.wait_for(reader.readuntil(b'"number": 2'), 30)
        while not following:
            await asyncio.sleep(0.001)
        writer.close()
        while following:
            await asyncio.sleep(0.001)
        reader, writer = await _open(path, "first:1")
        await asyncio.wait_for(reader.readuntil(b'"number": 2'), 30)
        await asyncio.wait_for(served.end(), 30)
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
        assert following == []

    run(main)
