"""TLS over a socket that does not block, and how long the certificate is good for."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509

from tula.health.check import clean
from tula.health.probes.attempt import Failure

_RECORD = 16384
_HANDSHAKE = 262144
"""Bytes that a handshake may take; a chain of certificates is a few thousand."""

T = TypeVar("T")


@lru_cache(maxsize=2)
def context(verify: bool) -> ssl.SSLContext:
    """Made once: reading the machine's authorities takes milliseconds."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify:
        made.load_default_certs()
    else:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    made.set_alpn_protocols(["http/1.1"])
    return made


class TLSStream:
    """The socket after ``handshake``; ``name`` is checked, and sent unless it is an address."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, opened: socket.socket, name: str, verify: bool
    ) -> None:
        self._loop = loop
        self._socket = opened
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._read = 0
        try:
            self._tls = context(verify).wrap_bio(
                self._incoming, self._outgoing, server_hostname=name
            )
        except (ValueError, UnicodeError) as error:
            raise Failure(f"{clean(name, 60)!r} is not a valid name for TLS") from error

    async def handshake(self) -> None:
        """Raises Failure when there is no TLS, or the certificate is not valid."""
        try:
            await self._drive(self._tls.do_handshake)
        except ssl.SSLCertVerificationError as error:
            raise Failure(f"certificate: {clean(error.verify_message, 100)}") from error
        except ssl.SSLError as error:
            reason = (error.reason or "").lower().replace("_", " ") or "closed"
            raise Failure(f"no TLS: {clean(reason, 80)}") from error

    def certificate(self) -> bytes | None:
        """The server's, as DER."""
        return self._tls.getpeercert(binary_form=True)

    async def send(self, data: bytes) -> None:
        await self._drive(lambda: self._tls.write(data))

    async def receive(self) -> bytes:
        """What came, empty at the end."""
        try:
            return await self._drive(lambda: self._tls.read(_RECORD))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise Failure(f"TLS broke: {clean(error.reason or '', 80)}") from error

    async def _drive(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                await self._flush()  # the alert
                raise
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await self._loop.sock_sendall(self._socket, data)

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._socket, _RECORD)
        self._read += len(data)
        if self._read > _HANDSHAKE:
            raise Failure(f"sent more than {_HANDSHAKE} bytes")
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


def expiry_warning(certificate: bytes | None, within: float, now: float | None = None) -> str:
    """What there is to say of a certificate that ends in less than ``within`` seconds."""
    ends = _ends(certificate) if certificate else None
    if ends is None:
        return ""
    left = ends - (time.time() if now is None else now)
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d")
    if left < 0:
        return f"the certificate expired on {day}"
    if left >= within:
        return ""
    return f"the certificate expires on {day}, in {_about(left)}"


def _about(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


@lru_cache(maxsize=4096)
def _ends(certificate: bytes) -> float | None:
    try:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()
    except ValueError:
        return None  # OpenSSL took it, and cryptography is stricter
