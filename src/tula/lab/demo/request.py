"""One client's request, from the first packet to the end of the answer."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field

from tula.lab.demo.stage import PORT
from tula.lab.host import Host

_PATIENCE = 10.0
"""Seconds that a download may take longer than it should, however busy the machine is."""

BROKEN = (OSError, EOFError, asyncio.TimeoutError)
"""What a broken connection raises."""


@dataclass(slots=True)
class Request:
    """A request and its outcome."""

    client: Host
    vip: str
    started: float = field(default_factory=time.monotonic)
    backend: str = ""
    """Who answers; known once the first bytes of the answer are here."""
    received: int = 0

    def open(self, kind: int, source_port: int = 0) -> socket.socket:
        """A socket in the client; not to be called across an ``await``."""
        family = socket.AF_INET6 if ":" in self.vip else socket.AF_INET
        made = self.client.socket(family, kind)
        made.setblocking(False)
        if source_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("", source_port))
        return made


async def download(request: Request, opened: socket.socket, size: int, rate: int) -> None:
    """GET ``size`` bytes at ``rate`` a second; raises one of ``BROKEN`` if it breaks."""
    async with asyncio.timeout(size / rate + _PATIENCE):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(opened, (request.vip, PORT))
        host = f"[{request.vip}]" if ":" in request.vip else request.vip
        get = f"GET /slow/{size}?rate={rate} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        await loop.sock_sendall(opened, get.encode())
        head, received = await _head(opened)
        request.backend, request.received = head, received
        buffer = bytearray(1 << 17)
        while request.received < size:
            count = await loop.sock_recv_into(opened, buffer)
            if not count:
                raise EOFError("the answer ended early")
            request.received += count


async def _head(opened: socket.socket) -> tuple[str, int]:
    """The backend named in the answer's header, and the bytes of the body received with it."""
    loop = asyncio.get_running_loop()
    data = b""
    while b"\r\n\r\n" not in data:
        more = await loop.sock_recv(opened, 4096)
        if not more:
            raise EOFError("no answer")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return head.partition(b"X-Backend: ")[2].partition(b"\r\n")[0].decode(), len(body)


async def ask(request: Request, opened: socket.socket) -> None:
    """One datagram; the socket is connected, so that an answer must come from the VIP."""
    async with asyncio.timeout(1.0):
        loop = asyncio.get_running_loop()
        await loop.sock_connect(opened, (request.vip, PORT))
        await loop.sock_sendall(opened, b"?")
        answer = await loop.sock_recv(opened, 2048)
        request.backend, request.received = answer.partition(b" ")[0].decode(), len(answer)
