"""Events as server-sent events (the HTML standard's ``text/event-stream``).

A stream holds no queue: it remembers the number of the last event that it sent, and reads on in the
event log, which is bounded. A client that is too slow finds that the log has gone on without it,
and is told of the gap.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from tula.engine.control import BusyError, Control
from tula.model.event import Event
from tula.model.severity import describe_event

HEARTBEAT = 15.0
"""Seconds after which a comment is sent when nothing happens: it keeps proxies from closing the
connection, and finds clients that are gone."""
MOST = 1000
"""Streams at a time."""
_BATCH = 100
_RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a browser connects again."""


class Streams:
    """The streams of one app."""

    def __init__(self) -> None:
        self._ending = asyncio.Event()
        self._count = 0

    @property
    def count(self) -> int:
        """How many there are now."""
        return self._count

    def close(self) -> None:
        """Ends all of them: the daemon ends."""
        self._ending.set()

    def open(
        self, control: Control, last: tuple[str, int] | None, heartbeat: float = HEARTBEAT
    ) -> AsyncIterator[bytes]:
        """A new stream: what comes after the event of that epoch and number; None: what happens
        from now on. Raises BusyError."""
        if self._ending.is_set() or self._count >= MOST:
            raise BusyError(f"{self._count} clients follow events already; try again later")
        return self._run(control, last, heartbeat)

    async def _run(
        self, control: Control, last: tuple[str, int] | None, heartbeat: float
    ) -> AsyncIterator[bytes]:
        self._count += 1
        ending = asyncio.create_task(self._ending.wait())
        try:
            if last is None:
                page = await control.events(None, 1)
                epoch, after = page.epoch, page.events[-1].number if page.events else 0
                # An id at once: who is cut off before the first event resumes here, too.
                yield _RETRY + b"id: %b\n\n" % _id(epoch, after)
            else:
                epoch, after = last
                yield _RETRY
            while not ending.done():
                page = await control.events(after, _BATCH, epoch)
                found = page.events
                if page.epoch != epoch or (found and found[0].number != after + 1):
                    first = found[0].number if found else 0
                    yield _gap(page.epoch, epoch, after, first)
                    epoch, after = page.epoch, max(first - 1, 0)
                if found:
                    after = found[-1].number
                    yield b"".join(_frame(epoch, event) for event in found)
                    continue
                coming = asyncio.create_task(control.next_event(after))
                try:
                    done, _ = await asyncio.wait(
                        {coming, ending}, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    coming.cancel()
                if not done:
                    yield b": nothing has happened\n\n"
        finally:
            ending.cancel()
            self._count -= 1


def _id(epoch: str, number: int) -> bytes:
    return f"{epoch}:{number}".encode()


def _frame(epoch: str, event: Event) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (
        _id(epoch, event.number),
        json.dumps(describe_event(event)).encode(),
    )


def _gap(epoch: str, before: str, after: int, first: int) -> bytes:
    """Events may be missing between those two numbers; with another epoch, all before are."""
    told = {"epoch": epoch, "before": before, "after": after, "next": first or None}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (
        _id(epoch, max(first - 1, 0)),
        json.dumps(told).encode(),
    )
