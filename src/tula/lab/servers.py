"""Servers inside hosts that say which backend answered; all run in the lab's one loop thread."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Protocol, Self, cast

from tula.lab.guard import LabError
from tula.lab.host import Host
from tula.lab.wait import on_loop


class ServerHost(Protocol):
    """Where a server runs: a ``Host``, or the namespace that this process was started in."""

    @property
    def name(self) -> str:
        """What a server there calls itself."""

    def addresses(self) -> list[str]:
        """Where it listens unless other addresses are given."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket in that namespace."""


class Server(ABC):
    """Listens in one host on some addresses and ports, and counts what it serves."""

    kind = socket.SOCK_STREAM

    def __init__(
        self, host: ServerHost, ports: Iterable[int], addresses: Sequence[str] | None
    ) -> None:
        """Describe it; ``start`` opens the sockets."""
        self.host = host
        self.name = host.name
        self.ports = tuple(ports)
        self.addresses = tuple(host.addresses() if addresses is None else addresses)
        self.requests = 0
        """Requests, datagrams or connections served, by the kind of server."""
        self.bytes = 0
        """Bytes of payload sent."""
        self._closers: list[Any] = []

    def start(self) -> Self:
        """Open the sockets inside the host; when this returns, clients can connect."""
        sockets: list[socket.socket] = []
        try:
            for address in self.addresses:
                for port in self.ports:
                    sockets.append(self._listen(address, port))
            on_loop(self._serve(sockets))
        except BaseException:
            for opened in sockets:
                opened.close()
            raise
        return self

    def close(self) -> None:
        """Stop listening and cut what is open; a client sees the port refuse. Twice is harmless."""
        on_loop(self._shut())

    def _listen(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
        made = self.host.socket(family, self.kind)
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address, port))
            if self.kind == socket.SOCK_STREAM:
                made.listen(1024)
        except OSError as error:
            made.close()
            raise LabError(f"{self.name} cannot listen on {address} port {port}: {error}") from None
        return made

    @abstractmethod
    async def _serve(self, sockets: list[socket.socket]) -> None:
        """Take the sockets over."""

    async def _shut(self) -> None:
        closers, self._closers = self._closers, []
        for closer in closers:
            closer.close()


class StreamServer(Server):
    """What TCP servers share: the listeners and the open connections."""

    def __init__(
        self, host: ServerHost, ports: Iterable[int], addresses: Sequence[str] | None
    ) -> None:
        super().__init__(host, ports, addresses)
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    async def _serve(self, sockets: list[socket.socket]) -> None:
        for listener in sockets:
            self._closers.append(
                await asyncio.start_server(self._connected, sock=listener, backlog=1024)
            )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self.serve_connection(reader, writer)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # gone, or another protocol: hang up
        finally:
            self._open.discard(writer)
            writer.close()

    @abstractmethod
    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection until its end."""

    async def _shut(self) -> None:
        await super()._shut()
        for writer in list(self._open):
            writer.transport.abort()


class TcpServer(StreamServer):
    """Says its name and a newline to whoever connects, and again for every line it gets."""

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer = self.name.encode() + b"\n"
        self.requests += 1
        while True:
            writer.write(answer)
            self.bytes += len(answer)
            await writer.drain()
            if not (await reader.readline()).endswith(b"\n"):
                return


class UdpServer(Server):
    """Answers every datagram with ``NAME PAYLOAD``, from the address it was sent to."""

    kind = socket.SOCK_DGRAM

    async def _serve(self, sockets: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for bound in sockets:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Echo(self), sock=bound)
            self._closers.append(transport)


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, server: UdpServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # 3.11: not a subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        answer = self._server.name.encode() + b" " + data
        self._server.requests += 1
        self._server.bytes += len(answer)
        self._transport.sendto(answer, addr)


def serve_tcp(
    host: Host, ports: Iterable[int], addresses: Sequence[str] | None = None
) -> TcpServer:
    """Name the host on these TCP ports, on these addresses or all that it has, VIPs included."""
    return host.owns(TcpServer(host, ports, addresses).start())


def serve_udp(
    host: Host, ports: Iterable[int], addresses: Sequence[str] | None = None
) -> UdpServer:
    """The same for UDP; the payload comes back behind the name."""
    return host.owns(UdpServer(host, ports, addresses).start())
