"""Requests to the daemon over its unix socket: a few at a time, and equal ones once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

import h11

from tula.api.gateway.answers import Answer, Headers, refusal
from tula.api.gateway.limits import (
    CHANGE_SECONDS,
    CHANGES,
    CHANGES_WAITING,
    PLANS,
    PLANS_WAITING,
    READ_SECONDS,
    READS,
    READS_WAITING,
)

_CHUNK = 64 * 1024
_OWN = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding"})
"""Headers of one connection, which the gateway gives anew for the client's."""
_PLAN = "/api/v1/plan"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A request as the daemon gets it."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = b""

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method not in _SAFE


class Lane:
    """So many at a time, and no more than so many that wait."""

    def __init__(self, running: int, waiting: int) -> None:
        self._turns = asyncio.Semaphore(running)
        self._most = waiting
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Inside it is this one's turn. Raises RefusalError when too many wait."""
        if self._turns.locked() and self._waiting >= self._most:
            raise refusal(503, "too many requests at once; ask again", "busy", wait=1)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()


@dataclass(slots=True)
class _Flight:
    """Equal requests: one under way, and one that those wait for who came since.

    Who comes while one is under way gets the next one's answer, not that one's: it was asked
    before, and may be from before a change that the client knows of.
    """

    running: asyncio.Task[Answer] | None = None
    coming: asyncio.Task[Answer] | None = None
    took: float = 0.0


class Upstream:
    """Asks the daemon whose socket is at this path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._reads = Lane(READS, READS_WAITING)
        self._changes = Lane(CHANGES, CHANGES_WAITING)
        self._plans = Lane(PLANS, PLANS_WAITING)
        self._flights: dict[object, _Flight] = {}
        self._asking = 0

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._asking > 0

    async def ask(self, request: Forwarded, rest: float = 0.0) -> Answer:
        """The daemon's answer, or the gateway's for it. Equal GETs share one.

        After each one of these the next waits ``rest`` times as long as it took, so that they
        keep the daemon busy for a part of the time only. Raises RefusalError.
        """
        self._asking += 1
        try:
            if request.method != "GET" or request.body:
                return await self._ask(request)
            return await self._shared(request, lambda: self._ask(request), rest)
        finally:
            self._asking -= 1

    async def _shared(
        self, key: object, ask: Callable[[], Awaitable[Answer]], rest: float
    ) -> Answer:
        flight = self._flights.setdefault(key, _Flight())
        if flight.coming is None:
            flight.coming = asyncio.create_task(self._fly(key, flight, ask, rest))
            # Everybody who asked may have gone by the time that it fails.
            flight.coming.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Who goes away must not take the answer from the others.
        return await asyncio.shield(flight.coming)

    async def _fly(
        self, key: object, flight: _Flight, ask: Callable[[], Awaitable[Answer]], rest: float
    ) -> Answer:
        before, loop = flight.running, asyncio.get_running_loop()
        if before is not None:
            await asyncio.wait({before})
            await asyncio.sleep(min(1.0, flight.took * rest))
        flight.running, flight.coming = flight.coming, None
        began = loop.time()
        try:
            return await ask()
        finally:
            flight.took = loop.time() - began
            if flight.coming is None:
                loop.call_later(min(1.0, flight.took * rest), self._forget, key, flight)

    def _forget(self, key: object, flight: _Flight) -> None:
        running = flight.running is not None and not flight.running.done()
        if flight.coming is None and not running and self._flights.get(key) is flight:
            del self._flights[key]

    async def _ask(self, request: Forwarded) -> Answer:
        lane = self._changes if request.changes else self._reads
        if request.changes and unquote(request.target.partition("?")[0]) == _PLAN:
            lane = self._plans
        limit = CHANGE_SECONDS if request.changes else READ_SECONDS
        try:
            async with lane.turn(), asyncio.timeout(limit), self.opened(request) as opened:
                parts = [part async for part in opened.body()]
                return Answer(opened.status, opened.headers, b"".join(parts))
        except TimeoutError:
            message = f"the daemon did not answer within {limit:g} s; traffic goes on without it"
            raise refusal(504, message, "no-answer") from None
        except (OSError, EOFError, h11.ProtocolError) as error:
            raise unreachable(error) from None

    @asynccontextmanager
    async def opened(self, request: Forwarded) -> AsyncIterator[Opened]:
        """The head of the daemon's answer, whose body comes bit by bit. Raises OSError, EOFError
        and h11.ProtocolError when there is none."""
        connection = h11.Connection(h11.CLIENT)
        headers = [(b"host", b"tula"), (b"connection", b"close"), *request.headers]
        if request.body or request.changes:
            headers.append((b"content-length", str(len(request.body)).encode()))
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        text = connection.send(head) or b""
        text += (connection.send(h11.Data(request.body)) or b"") if request.body else b""
        text += connection.send(h11.EndOfMessage()) or b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
            daemon.setblocking(False)
            await asyncio.get_running_loop().sock_connect(daemon, self.path)
            # The daemon may answer, and close, before it has read a body that it does not take.
            # A stream of asyncio would lose that answer with the failed write.
            sending = asyncio.create_task(_send(daemon, text))
            try:
                opened = Opened(connection, daemon)
                await opened.begin()
                yield opened
            finally:
                sending.cancel()
                await asyncio.wait({sending})


async def _send(daemon: socket.socket, text: bytes) -> None:
    with suppress(OSError):  # whatever it is, the answer's absence tells it
        await asyncio.get_running_loop().sock_sendall(daemon, text)


@dataclass(slots=True)
class Opened:
    """An answer that is being read."""

    connection: h11.Connection
    daemon: socket.socket
    status: int = 0
    headers: Headers = field(default_factory=list)

    async def begin(self) -> None:
        """Reads the head."""
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise EOFError
        self.status = event.status_code
        self.headers = [(name, value) for name, value in event.headers if name not in _OWN]

    async def body(self) -> AsyncIterator[bytes]:
        """What comes after it."""
        while isinstance(event := await self._next(), h11.Data):
            yield bytes(event.data)

    async def _next(self) -> h11.Event:
        loop = asyncio.get_running_loop()
        while (event := self.connection.next_event()) is h11.NEED_DATA:
            self.connection.receive_data(await loop.sock_recv(self.daemon, _CHUNK))
        if isinstance(event, h11.Event):
            return event
        raise EOFError


def unreachable(error: Exception) -> Exception:
    """The refusal for a daemon that cannot be asked."""
    why = getattr(error, "strerror", None) or "it ended before it answered"
    return refusal(502, f"the daemon cannot be asked: {why}", "no-daemon", wait=1)
