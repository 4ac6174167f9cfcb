"""http and https: one request, judged by the answer's status and by text in its body.

The status may drain the backend, and the body may give its weight.
"""

from __future__ import annotations

import asyncio
import socket
from functools import lru_cache
from typing import Any, Protocol

import h11

from tula.health.check import clean
from tula.health.probes.attempt import LIMIT, Attempt, Failure
from tula.health.probes.tls import TLSStream, expiry_warning
from tula.health.words import LONGEST_WEIGHT, not_a_weight, parse_weight
from tula.model.advice import Admin, Words
from tula.model.monitor import HttpProbe, HttpsProbe

_USUAL_PORT = {"http": 80, "https": 443}
_INTERIM = 8
"""How many 1xx answers may come before the one that counts."""


class _Stream(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...


class _Plain:
    def __init__(self, attempt: Attempt, opened: socket.socket) -> None:
        self._loop = attempt.loop
        self._socket = opened

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self._socket, 16384)


async def probe(settings: HttpProbe, attempt: Attempt) -> str:
    """Connects, asks, and judges as soon as the verdict is clear."""
    with attempt.opened(socket.SOCK_STREAM) as opened:
        await attempt.connect(opened)
        attempt.stage = "connected, but no answer"
        stream: _Stream = _Plain(attempt, opened)
        if isinstance(settings, HttpsProbe):
            stream = await _secure(settings, attempt, opened)
            attempt.stage = "connected by TLS, but no answer"
        return await _exchange(settings, attempt, stream)


async def _secure(settings: HttpsProbe, attempt: Attempt, opened: socket.socket) -> TLSStream:
    name = _name_of(settings.host) or str(attempt.target.address)
    stream = TLSStream(attempt.loop, opened, name, settings.verify)
    await stream.handshake()
    attempt.warning = expiry_warning(stream.certificate(), settings.expires_within)
    return stream


def _name_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


async def _exchange(settings: HttpProbe, attempt: Attempt, stream: _Stream) -> str:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    try:
        request = connection.send(_request(settings, attempt)) or b""
        request += connection.send(h11.EndOfMessage()) or b""
    except h11.LocalProtocolError as error:
        raise Failure(f"invalid request: {clean(str(error), 80)}") from error
    await stream.send(request)
    try:
        return await _read(settings, attempt, stream, connection)
    except h11.RemoteProtocolError as error:
        raise Failure(f"invalid HTTP response: {clean(str(error), 80)}") from error


def _request(settings: HttpProbe, attempt: Attempt) -> h11.Request:
    host, target = settings.host, attempt.target
    if not host:
        host = f"[{target.address}]" if target.address.version == 6 else str(target.address)
        if target.port != _USUAL_PORT[settings.type]:
            host += f":{target.port}"
    return _made_request(settings.path, host, settings.headers)


@lru_cache(maxsize=4096)
def _made_request(path: str, host: str, headers: tuple[tuple[str, str], ...]) -> h11.Request:
    given = {name.lower() for name, _ in headers}
    own = {"Host": host, "Connection": "close", "Accept-Encoding": "identity"}
    own |= {k: v for k, v in (("User-Agent", "tula"), ("Accept", "*/*")) if k.lower() not in given}
    lines = [*own.items(), *headers]
    return h11.Request(
        method="GET",
        target=path,
        headers=[(name.encode(), value.encode()) for name, value in lines],
    )


async def _read(
    settings: HttpProbe, attempt: Attempt, stream: _Stream, connection: h11.Connection
) -> str:
    wanted, weighs = settings.body.encode(), bool(settings.weight_from)
    body = bytearray()
    status = total = events = interim = 0
    while True:
        event: Any = connection.next_event()
        events += 1
        if events % 64 == 0:
            await asyncio.sleep(0)  # an answer in a thousand pieces holds nobody else up
        if event is h11.NEED_DATA:
            if total >= LIMIT:
                raise Failure(_too_much(status, b"" if weighs else wanted))
            data = await stream.receive()
            if not data and not status:
                raise Failure("closed in the headers" if total else "closed without an answer")
            total += len(data)
            connection.receive_data(data)
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > _INTERIM:
                raise Failure(f"more than {_INTERIM} interim answers (status {event.status_code})")
        elif isinstance(event, h11.Response):
            status = event.status_code
            if status in settings.drain_on:
                attempt.words = Words(admin=Admin.DRAIN, cause=f"answered {status}")
                return f"status {status}, which drains it"
            _judge_status(settings, status)
            attempt.words = Words()
            if not wanted and not weighs:
                return f"status {status}"
            _judge_coding(event, status)
            attempt.stage = f"status {status}, but its body did not end or hold what is wanted"
        elif isinstance(event, h11.Data) and weighs:
            body += event.data
            if len(body) > LONGEST_WEIGHT:
                break
        elif isinstance(event, h11.Data):
            start = max(0, len(body) - len(wanted))
            body += event.data
            if body.find(wanted, start) >= 0:
                return f"status {status}, and the body holds {clean(wanted, 40)!r}"
        else:
            break
    if weighs:
        return _weight(attempt, status, bytes(body))
    raise Failure(f"status {status}, but the body does not hold {clean(wanted, 40)!r}")


def _weight(attempt: Attempt, status: int, body: bytes) -> str:
    weight = parse_weight(body)
    if weight is None:
        raise Failure(f"status {status}, but {not_a_weight('the body', body)}")
    attempt.words = Words(weight)
    return f"status {status}, weight {weight}"


def _judge_status(settings: HttpProbe, status: int) -> None:
    allowed = settings.status
    if status not in allowed if allowed else not 200 <= status <= 399:
        words = " or ".join(map(str, allowed)) if allowed else "200 to 399"
        raise Failure(f"status {status}, wanted {clean(words, 80)}")


def _judge_coding(response: h11.Response, status: int) -> None:
    for name, value in response.headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            coding = clean(bytes(value), 40)
            raise Failure(f"status {status}, but the body is in {coding}, which was not asked for")


def _too_much(status: int, wanted: bytes) -> str:
    if not status:
        return f"no end of the headers in {LIMIT} bytes"
    if not wanted:
        return f"status {status}, but no end of the body in {LIMIT} bytes"
    return f"status {status}, but the first {LIMIT} bytes do not hold {clean(wanted, 40)!r}"
