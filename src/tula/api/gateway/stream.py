"""Events for many clients from one stream of the daemon's.

The latest events are kept as the daemon sent them. A client is a place in that row and holds no
queue: one that is too slow finds that the row has moved on, and is told of the gap.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncGenerator
from itertools import dropwhile, islice

import h11

from tula.api.gateway.upstream import Forwarded, Upstream

TARGET = "/api/v1/events/stream"
_LATEST = "/api/v1/events?limit=1"
KEPT = 2000
"""Events; as many as the daemon's log has."""
HEARTBEAT = 15.0
_BATCH = 100
_AGAIN = 1.0
_LINGER = 30.0
"""Seconds for which the daemon's stream is kept when nobody listens."""
_LONGEST = 1 << 20
RETRY = b"retry: 1000\n\n"
_QUIET = b": nothing has happened\n\n"
_PLACE = re.compile(r"[0-9A-Za-z_-]{1,64}:[0-9]{1,15}")
_CALLER = ((b"tula-caller", b"gateway"), (b"tula-scope", b"read"))

Place = tuple[str, int]
"""An epoch, and the number of the last event in it that a client has."""


def parse_place(text: str) -> Place | None:
    """The place that a ``Last-Event-ID`` names; None for what is none."""
    epoch, _, number = text.rpartition(":")
    return (epoch, int(number)) if _PLACE.fullmatch(text) else None


class Events:
    """The row of the latest events. ``run`` keeps it going, while there is a client."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._epoch = ""
        self._before = 0
        """the number before the first that is kept"""
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._live = 0
        """the last number when the daemon's stream began"""
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self.clients = 0

    async def follow(
        self, last: Place | None, heartbeat: float = HEARTBEAT
    ) -> AsyncGenerator[bytes, None]:
        """What comes after the event at ``last``; None: from now on. Never ends by itself."""
        self.clients += 1
        self._wanted.set()
        try:
            while not self._epoch or self._newest < self._live:
                await self._change(None)
            epoch, after = last or (self._epoch, self._newest)
            # An id at once: who is cut off before the first event resumes here, too.
            yield RETRY if last else RETRY + _id(epoch, after) + b"\n"
            while True:
                if epoch != self._epoch or not self._before <= after <= self._newest:
                    yield _gap(self._epoch, epoch, after, self._before, bool(self._kept))
                    epoch, after = self._epoch, self._before
                if found := self._after(after):
                    after = found[-1][0]
                    yield b"".join(frame for _, frame in found)
                elif not await self._change(heartbeat):
                    yield _QUIET
        finally:
            self.clients -= 1

    async def run(self) -> None:
        """Reads the daemon's stream whenever a client wants it, until it is cancelled."""
        while True:
            await self._wanted.wait()
            reading = asyncio.create_task(self._read())
            try:
                while not reading.done():
                    await asyncio.wait({reading}, timeout=_LINGER)
                    if not self.clients:
                        self._wanted.clear()
                        break
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if self._wanted.is_set():
                await asyncio.sleep(_AGAIN)

    def _after(self, number: int) -> list[tuple[int, bytes]]:
        # Most clients wait at the end of the row.
        if number >= self._newest:
            return []
        return list(islice(dropwhile(lambda each: each[0] <= number, self._kept), _BATCH))

    @property
    def _newest(self) -> int:
        return self._kept[-1][0] if self._kept else self._before

    async def _read(self) -> None:
        try:
            if not self._epoch:
                await self._begin()
            place = _id(self._epoch, self._newest)[4:-1]
            request = Forwarded("GET", TARGET, (*_CALLER, (b"last-event-id", place)))
            async with self._upstream.opened(request) as opened:
                if opened.status != 200:
                    return
                text = b""
                async for part in opened.body():
                    *frames, text = (text + part).split(b"\n\n")
                    for frame in frames:
                        self._take(frame + b"\n\n")
                    if len(text) > _LONGEST:
                        return
        except (OSError, EOFError, ValueError, LookupError, h11.ProtocolError):
            return  # the next try tells

    async def _begin(self) -> None:
        """Where the row begins: with all that the daemon still has."""
        async with self._upstream.opened(Forwarded("GET", _LATEST, _CALLER)) as opened:
            page = json.loads(b"".join([part async for part in opened.body()]))
        self._live = max((each["number"] for each in page["events"]), default=0)
        self._epoch, self._before = str(page["epoch"]), max(0, self._live - KEPT)
        self._tell()

    def _take(self, frame: bytes) -> None:
        fields = dict(line.partition(b": ")[::2] for line in frame.splitlines())
        if b"id" not in fields:
            return  # a comment
        epoch, _, number = fields[b"id"].decode().rpartition(":")
        if fields.get(b"event") == b"gap":
            self._kept.clear()
            self._epoch, self._before = epoch, int(number)
            self._live = min(self._live, self._before) if epoch == self._epoch else 0
        elif b"data" in fields:
            if len(self._kept) == KEPT:
                self._before = self._kept[0][0]
            self._kept.append((int(number), frame))
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self, within: float | None) -> bool:
        """Waits for news; False if there were none in that time."""
        try:
            async with asyncio.timeout(within):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _id(epoch: str, number: int) -> bytes:
    return f"id: {epoch}:{number}\n".encode()


def _gap(epoch: str, before: str, after: int, kept: int, some: bool) -> bytes:
    """As the daemon's: events may be missing between ``after`` and the first that is kept."""
    told = {"epoch": epoch, "before": before, "after": after, "next": kept + 1 if some else None}
    return b"event: gap\n" + _id(epoch, kept) + f"data: {json.dumps(told)}\n\n".encode()
