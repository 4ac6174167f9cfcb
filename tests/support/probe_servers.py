"""Servers of one answer on a loopback address, and a probe that is sent to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tula.health.check import Outcome
from tula.health.probes import send_probe
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.model.health import ProbeTarget
from tula.model.monitor import PROBES, HealthMonitor

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def settings(kind: str, *, timeout: float = 2.0, **own: object) -> HealthMonitor:
    """A monitor of a kind; ``own`` are the fields of that kind's probe."""
    return HealthMonitor(PROBES[kind](**own), timeout=timeout, via="direct")


async def probe(monitor: HealthMonitor, port: int = 0, address: str = "127.0.0.1") -> Outcome:
    """Asks that port by a plain socket."""
    return await send_probe(monitor, ProbeTarget(ip_address(address), port), KernelProbeSockets())


@asynccontextmanager
async def tcp_server(
    serve: Serve, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Its port. Connections end with the server, whatever they are at."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, address, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(*parts: bytes, close: bool = True, after_request: bool = True) -> Serve:
    """Waits for the end of a request's headers, then says this, then closes or keeps still."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after_request:
            await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        if not close:
            await asyncio.sleep(60)

    return serve


def repeats(first: bytes, again: bytes, pause: float = 0.0) -> Serve:
    """Says one thing, then another without end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return serve


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        for answer in self._answer(data):
            self._transport.sendto(answer, address)


@asynccontextmanager
async def udp_server(
    answer: Callable[[bytes], list[bytes]], address: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Its port; each datagram is answered by those that ``answer`` gives."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Answers(answer), local_addr=(address, 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def closed_port(address: str = "127.0.0.1") -> int:
    """A port on which nothing listens."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as taken:
        taken.bind((address, 0))
        return int(taken.getsockname()[1])


def certificate(folder: Path, name: str, days: float) -> ssl.SSLContext:
    """A server's context with a certificate of its own making that ends in so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
