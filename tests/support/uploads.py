"""Uploads over TCP: what arrived, how long it took, and what the client was told of the path."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import NamedTuple

from tula.lab import Host
from tula.lab.servers import StreamServer

_IP_MTU, _IPV6_MTU = 14, 24


class Sink(StreamServer):
    """Reads until the client has said all, and answers with the number of bytes."""

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        count = 0
        while data := await reader.read(1 << 18):
            count += len(data)
        writer.write(str(count).encode())
        await writer.drain()


class Upload(NamedTuple):
    """``arrived`` is 0 when no answer came in time; ``mtu`` is what the client thinks of the path;
    ``mss`` the size of its segments at the end."""

    arrived: int
    seconds: float
    mtu: int
    mss: int


def upload(client: Host, vip: str, port: int, size: int, timeout: float) -> Upload:
    """One connection, ``size`` bytes of zeros, then the answer."""
    six = ":" in vip
    with client.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM) as made:
        made.settimeout(timeout)
        start = time.monotonic()
        made.connect((vip, port))
        arrived = 0
        try:
            made.sendall(bytes(size))
            made.shutdown(socket.SHUT_WR)
            arrived = int(made.recv(100) or b"0")
        except OSError:
            pass  # TimeoutError, or what the connection ended with
        seconds = time.monotonic() - start
        level, name = (socket.IPPROTO_IPV6, _IPV6_MTU) if six else (socket.IPPROTO_IP, _IP_MTU)
        mss = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        try:
            mtu = made.getsockopt(level, name)
        except OSError:
            mtu = 0  # the connection is over, and its route with it
        return Upload(arrived, seconds, mtu, mss)


def download(client: Host, vip: str, port: int, timeout: float) -> Upload:
    """One connection, a line, and all that comes until the server closes."""
    with client.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        start = time.monotonic()
        s.connect((vip, port))
        s.sendall(b"?\n")
        arrived = 0
        try:
            while data := s.recv(1 << 18):
                arrived += len(data)
        except OSError:
            arrived = -arrived  # it ended before its end
        return Upload(arrived, time.monotonic() - start, 0, 0)
