"""Applications of every kind that a health check asks, which can be told to answer wrongly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tula.lab import Host
from tula.lab.servers import Server, StreamServer

Answer = Callable[[bytes, str], bytes]
"""From what was asked and the address that it was asked of to what is said."""

NAME = "www.example.org"


def http(status: int, body: str) -> Answer:
    """An answer of HTTP's with this status and body."""
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda _asked, _address: (head + body).encode()


def line(text: str) -> Answer:
    """The text and a newline."""
    return lambda _asked, _address: f"{text}\n".encode()


def record(rcode: int = dns.rcode.NOERROR, text: str = "192.0.2.1") -> Answer:
    """A DNS answer: one A record, or none where the text is empty."""

    def answer(asked: bytes, _address: str) -> bytes:
        found = dns.message.make_response(dns.message.from_wire(asked))
        found.set_rcode(cast(Any, rcode))
        if text:
            found.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", text))
        return found.to_wire()

    return answer


class StreamApplication(StreamServer):
    """By TCP or TLS: reads once unless told not to, says ``answer``, closes."""

    def __init__(
        self,
        host: Host,
        ports: Iterable[int],
        answer: Answer,
        tls: ssl.SSLContext | None = None,
        reads: bool = True,
    ) -> None:
        super().__init__(host, ports, None)
        self.answer = answer
        self._tls = tls
        self._reads = reads

    async def _serve(self, sockets: list[socket.socket]) -> None:
        for listener in sockets:
            self._closers.append(
                await asyncio.start_server(self._connected, sock=listener, ssl=self._tls)
            )

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        asked = await reader.read(4096) if self._reads else b""
        if self._reads and not asked:
            return
        writer.write(self.answer(asked, writer.get_extra_info("sockname")[0]))
        await writer.drain()


class DatagramApplication(Server):
    """By UDP: each datagram is answered."""

    kind = socket.SOCK_DGRAM

    def __init__(self, host: Host, ports: Iterable[int], answer: Answer) -> None:
        super().__init__(host, ports, None)
        self.answer = answer

    async def _serve(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for bound in sockets:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Talk(self), sock=bound)
            self._closers.append(transport)


class _Talk(asyncio.DatagramProtocol):
    def __init__(self, application: DatagramApplication) -> None:
        self._application = application

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        own = self._transport.get_extra_info("sockname")[0]
        self._transport.sendto(self._application.answer(data, own), addr)
