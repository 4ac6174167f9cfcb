"""One client's connection: requests one after the other, each bounded in time and size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus

import h11

from tula.api.gateway.answers import Answer, RefusalError, refusal
from tula.api.gateway.limits import (
    BODY,
    BODY_BYTES,
    BODY_RATE,
    CONFIGURATION_BYTES,
    FIRST_REQUEST,
    HEAD_BYTES,
    HEADER,
    IDLE,
    SMALL_BODIES_BYTES,
    STALLED,
    Answers,
    Budget,
)

_READ = 64 * 1024
_LINGER, _PAUSE, _LINGER_BYTES = 2.0, 0.5, 1 << 20
"""For how long, with what pause between bytes, and how much is read of what nobody wants."""
_REASONS = {int(status): status.phrase for status in HTTPStatus}
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
"""As the daemon's routes take configurations."""
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a request; ``headers`` by their names in lower case, as they came."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]

    def header(self, name: bytes) -> str | None:
        """The value of a header; None if it is missing. Raises RefusalError if it is given more
        than once."""
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            message = f"the header {name.decode()} is given more than once"
            raise refusal(400, message, "malformed", close=True)
        return found[0].decode("latin-1") if found else None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end; ``wanted`` is asked again and again whether it may go on."""

    parts: AsyncGenerator[bytes, None]
    wanted: Callable[[], bool]


Handler = Callable[[Head, "Connection"], Awaitable[Answer | Stream]]


class Connection:
    """What is sent and received on it. ``address`` is the client's."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        address: str,
        budget: Budget,
        on_rest: Callable[[], object] = lambda: None,
        answers: Answers | None = None,
    ) -> None:
        """``on_rest`` is told when an answer has been sent and nothing else is asked."""
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._budget = budget
        self._on_rest = on_rest
        self._answers = answers or Answers()
        self._method = ""
        self._length: int | None = None
        self._held = 0
        self.address = address

    async def run(self, handle: Handler, on_refusal: Callable[[str, str, str], object]) -> None:
        """Answers until either side has enough. ``on_refusal`` is told address, path, reason."""
        wait = FIRST_REQUEST
        while True:
            path = ""
            try:
                head = await self._read_head(wait)
                if head is None:
                    return
                path = head.path
                answer = await handle(head, self)
            except RefusalError as error:
                answer = error.answer
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint
                status = status if status in (400, 431) else 400
                answer = refusal(status, f"this is not HTTP/1.1: {error}", "malformed").answer
                answer = replace(answer, close=True)
            finally:
                # Only now: until the daemon has answered, the body is in memory.
                self._budget.give(self._held)
                self._held = 0
            if isinstance(answer, Stream):
                await self._send_stream(answer)
                return
            if answer.reason:
                on_refusal(self.address, path, answer.reason)
            if not await self._send(answer):
                return
            self._on_rest()
            wait = IDLE

    async def read_body(self, head: Head, *, large: bool = True) -> bytes:
        """The request's body; one of a configuration's size if ``large``. Raises RefusalError when
        it is too large or too slow."""
        kind = (head.header(b"content-type") or "").partition(";")[0].strip().lower()
        most = CONFIGURATION_BYTES if large and kind in _YAML else BODY_BYTES
        if self._length is not None and self._length > most:
            raise _too_large(most)
        return await self._read_body(most)

    def _hold(self, size: int) -> None:
        """So much of a body is in memory: what has only been announced takes nobody's place."""
        keep = 0 if size <= BODY_BYTES else SMALL_BODIES_BYTES
        if not self._budget.take(size - self._held, keep):
            message = "too many large requests at once; ask again"
            raise refusal(503, message, "busy", wait=2, close=True)
        self._held = size

    async def _read_body(self, most: int) -> bytes:
        loop = asyncio.get_running_loop()
        began, parts, size = loop.time(), list[bytes](), 0
        if self._h11.they_are_waiting_for_100_continue:
            go = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self._h11.send(go) or b"")
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                left = began + BODY + size / BODY_RATE - loop.time()
                try:
                    async with asyncio.timeout(max(0.0, left)):
                        data = await self._reader.read(_READ)
                except TimeoutError:
                    raise refusal(408, "the body came too slowly", "slow", close=True) from None
                self._h11.receive_data(data)
            elif isinstance(event, h11.Data):
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > most:
                    raise _too_large(most)
                self._hold(size)
            elif isinstance(event, h11.EndOfMessage):
                return b"".join(parts)
            else:
                raise ConnectionResetError

    async def _read_head(self, wait: float) -> Head | None:
        """None when the client has gone, or asks for nothing in time."""
        loop = asyncio.get_running_loop()
        self._method = ""  # what is no request gets an answer with a body, whatever came before
        end, first = loop.time() + wait, wait == FIRST_REQUEST
        begun = first or bool(self._h11.trailing_data[0])
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                return self._head(event)
            if event is not h11.NEED_DATA:
                return None
            try:
                async with asyncio.timeout(max(0.0, end - loop.time())):
                    data = await self._reader.read(_READ)
            except TimeoutError:
                if self._h11.trailing_data[0]:
                    raise refusal(
                        408, "the request's head came too slowly", "slow", close=True
                    ) from None
                return None
            if not begun:
                begun, end = True, loop.time() + HEADER
            self._h11.receive_data(data)

    def _head(self, request: h11.Request) -> Head:
        self._method = request.method.decode("ascii")
        headers = tuple((bytes(name), bytes(value)) for name, value in request.headers)
        names = [name for name, _ in headers]
        # h11 counts only what it waits for; a larger head may have come at once.
        if len(request.target) + sum(len(a) + len(b) + 4 for a, b in headers) > HEAD_BYTES:
            message = f"the head is larger than {HEAD_BYTES >> 10} KiB"
            raise refusal(431, message, "malformed", close=True)
        lengths = [value for name, value in headers if name == b"content-length"]
        self._length = int(lengths[0]) if lengths else None
        if b"transfer-encoding" in names and lengths:
            message = "Content-Length beside Transfer-Encoding; give one of them"
            raise refusal(400, message, "malformed", close=True)
        if not lengths and b"transfer-encoding" not in names:
            self._length = 0
        if self._method not in METHODS:
            raise refusal(501, f"no method {self._method[:20]!r} here", "malformed", close=True)
        target = request.target.decode("ascii")
        if not target.startswith("/") or "#" in target:
            raise refusal(400, "the target must be a path", "malformed", close=True)
        return Head(self._method, target, headers)

    async def _send(self, answer: Answer) -> bool:
        """Whether the connection goes on after it."""
        if self._h11.their_state is h11.SEND_BODY and self._length == 0:
            self._h11.next_event()  # there is no body to be read
        close = answer.close or self._h11.their_state is not h11.DONE
        headers = [(b"date", _date()), *answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        if close:
            headers.append((b"connection", b"close"))
        head = h11.Response(
            status_code=answer.status, headers=headers, reason=_REASONS.get(answer.status, "")
        )
        await self._write(self._h11.send(head) or b"")
        if answer.body and self._method != "HEAD":
            await self._send_body(answer.body)
        await self._write(self._h11.send(h11.EndOfMessage()) or b"")
        if close:
            await self._linger()
            return False
        self._h11.start_next_cycle()
        return True

    async def _send_body(self, body: bytes) -> None:
        task = asyncio.current_task()
        assert task is not None
        held = self._answers.hold(body, task.cancel) if len(body) > _READ else None
        try:
            for begin in range(0, len(body), _READ):
                await self._write(self._h11.send(h11.Data(body[begin : begin + _READ])))
        finally:
            if held is not None:
                self._answers.release(held)

    async def _send_stream(self, stream: Stream) -> None:
        headers = [
            (b"date", _date()),
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=200, headers=headers, reason="OK")
        await self._write(self._h11.send(head))
        # Whoever follows says nothing more; what comes is the end.
        ended = asyncio.create_task(self._reader.read(1))
        task = asyncio.current_task()
        assert task is not None
        ended.add_done_callback(lambda done: None if done.cancelled() else task.cancel())
        try:
            async with aclosing(stream.parts) as parts:
                async for part in parts:
                    if not stream.wanted():
                        break
                    await self._write(self._h11.send(h11.Data(part)))
            await self._write(self._h11.send(h11.EndOfMessage()) or b"")
        finally:
            ended.cancel()

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > _READ:
            async with asyncio.timeout(STALLED):  # raises where the client takes nothing
                await self._writer.drain()

    async def _linger(self) -> None:
        """Reads on for a moment: unread bytes would reset the connection, and take the answer
        from the client."""
        if self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            return
        if self._writer.can_write_eof():  # not in TLS, which has no half of a close
            self._writer.write_eof()
        left = _LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while left > 0:
                    async with asyncio.timeout(_PAUSE):
                        data = await self._reader.read(_READ)
                    if not data:
                        return
                    left -= len(data)


def _too_large(most: int) -> RefusalError:
    size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    message = f"the body is larger than {size}"
    if most == BODY_BYTES:
        message += "; a configuration is sent as Content-Type: application/yaml"
    return refusal(413, message, "too-large", close=True)


def _date() -> bytes:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
