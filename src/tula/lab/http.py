"""A small HTTP/1.1 server for backends, with downloads of any size and speed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qs, urlsplit

from tula.lab.host import Host
from tula.lab.servers import ServerHost, StreamServer

_BLOCK = bytes(1 << 18)
_TICK = 0.02
"""Seconds between the pieces of a slow answer."""


class HttpServer(StreamServer):
    """Every answer carries ``X-Backend: NAME``; connections are kept alive.

    | path | answer |
    |---|---|
    | ``/`` | ``NAME CLIENT-ADDRESS`` |
    | ``/bytes/N`` | N bytes, as fast as they go |
    | ``/slow/N?rate=R`` | N bytes at R bytes a second (100,000) |
    | ``/healthz`` | 200 while ``healthy`` is true, else 503 |
    | ``/upload`` | the number of bytes in the request's body |
    """

    def __init__(
        self, host: ServerHost, ports: Iterable[int], addresses: Sequence[str] | None
    ) -> None:
        super().__init__(host, ports, addresses)
        self.healthy = True
        self.received = 0
        """Bytes of request bodies."""

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.transport.set_write_buffer_limits(high=1 << 22)
        peer = writer.get_extra_info("peername")
        client = str(peer[0]) if peer else "-"
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            request, *fields = head.decode("latin-1").split("\r\n")
            method, target, version = request.split(" ", 2)
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (field.partition(":") for field in fields if field)
            }
            body = await self._discard(reader, int(headers.get("content-length", "0")))
            self.requests += 1
            wants_close = headers.get("connection", "").lower() == "close"
            close = wants_close or version == "HTTP/1.0"
            await self._answer(writer, method, target, client, body, close)
            if close:
                return

    async def _discard(self, reader: asyncio.StreamReader, length: int) -> int:
        left = length
        while left:
            data = await reader.read(min(left, len(_BLOCK)))
            if not data:
                raise ConnectionResetError
            left -= len(data)
            self.received += len(data)
        return length

    async def _answer(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        client: str,
        body: int,
        close: bool,
    ) -> None:
        url = urlsplit(target)
        what, _, argument = url.path.strip("/").partition("/")
        status, size, text, rate = "200 OK", 0, "", 0.0
        if what in ("bytes", "slow") and argument.isdecimal():
            size = int(argument)
            if what == "slow":
                rate = float(parse_qs(url.query).get("rate", ["100000"])[0])
        elif what == "":
            text = f"{self.name} {client}\n"
        elif what == "healthz":
            text = "ok\n" if self.healthy else "unhealthy\n"
            status = status if self.healthy else "503 Service Unavailable"
        elif what == "upload":
            text = f"{body}\n"
        else:
            status, text = "404 Not Found", "no such page\n"
        head = (
            f"HTTP/1.1 {status}\r\nX-Backend: {self.name}\r\n"
            f"Content-Type: {'text/plain' if text else 'application/octet-stream'}\r\n"
            f"Content-Length: {len(text) or size}\r\n"
            f"Connection: {'close' if close else 'keep-alive'}\r\n\r\n"
        )
        sends = method != "HEAD"
        writer.write((head + (text if sends else "")).encode())
        self.bytes += len(text) if sends else 0
        if sends and size:
            await self._stream(writer, size, rate)
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter, size: int, rate: float) -> None:
        """``size`` bytes, at ``rate`` bytes a second unless that is 0."""
        loop = asyncio.get_running_loop()
        start, sent = loop.time(), 0
        while sent < size:
            if rate:
                await asyncio.sleep(_TICK)
                due = min(size, int((loop.time() - start) * rate)) - sent
            else:
                due = size - sent
            part = min(due, len(_BLOCK))
            if part <= 0:
                continue
            writer.write(_BLOCK if part == len(_BLOCK) else _BLOCK[:part])
            sent += part
            self.bytes += part
            await writer.drain()


def serve_http(
    host: Host, port: int | Iterable[int] = 80, addresses: Sequence[str] | None = None
) -> HttpServer:
    """Serve HTTP on these addresses, or on all that the host has now, VIPs included."""
    ports = [port] if isinstance(port, int) else port
    return host.owns(HttpServer(host, ports, addresses).start())
