"""Asks another balancer's API: one TLS connection that stays, to a certificate that is pinned.

One thread at a time. Every wait is bounded, and so is an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tula.engine.peers import Peer
from tula.model.wording import printable

PREFIX = "/api/v1"
_NONE: Mapping[str, str] = {}
_LARGEST = 32 << 20
"""Bytes of an answer: a configuration has 16 MiB at most."""
_TOLD = 1000
"""Characters of a reason that are passed on."""


class PeerError(Exception):
    """A peer cannot be asked, or did not answer as one; one line."""


class PeerAnswer(NamedTuple):
    """What HTTP answered. ``sent`` and ``heard`` are by time.monotonic."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    sent: float
    heard: float

    def json(self) -> Any:
        """The body as JSON. Raises PeerError."""
        try:
            return json.loads(self.body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise PeerError("what answers there is not Tula's daemon") from None

    def refusal(self) -> str:
        """Why it did not do what was asked."""
        if self.status == 401:
            return "it does not know our token; tula peer add makes a new one"
        try:
            messages = [str(each["message"]) for each in json.loads(self.body)["errors"][:3]]
        except (LookupError, ValueError, TypeError, RecursionError):
            messages = []
        return printable("; ".join(messages), _TOLD) or f"it answered with status {self.status}"


def _refuse(constant: str) -> None:
    """NaN and Infinity are no JSON (RFC 8259), and could not be passed on as such."""
    raise ValueError(constant)


class PeerClient:
    """Speaks to one peer; connects when it is asked something, and again when that was lost."""

    def __init__(self, peer: Peer, timeout: float = 2.0) -> None:
        """``timeout`` is in seconds, for the connection and for each wait for bytes."""
        self.peer = peer
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = _NONE,
        *,
        timeout: float | None = None,
    ) -> PeerAnswer:
        """Asks once, below /api/v1. What is repeated is only what no byte was answered to on a
        connection that had rested: the other end may have closed it. Raises PeerError."""
        seconds = self._timeout if timeout is None else timeout
        rested = self._connection is not None
        try:
            return self._ask(method, path, body, headers, seconds)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            closed = isinstance(error, ConnectionError | http.client.RemoteDisconnected)
            if not (rested and closed and method == "GET"):
                raise PeerError(self._reason(error, seconds)) from None
        try:
            return self._ask(method, path, body, headers, seconds)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise PeerError(self._reason(error, seconds)) from None

    def close(self) -> None:
        """Ends the connection; from another thread, what waits on it fails at once."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> PeerAnswer:
        connection = self._connection
        if connection is None:
            connection = self._connection = _Connection(self.peer, self._timeout)
            connection.connect()
        connection.sock.settimeout(seconds)
        sent = time.monotonic()
        given = {"Authorization": f"Bearer {self.peer.token}", **headers}
        connection.request(method, PREFIX + path, body, given)
        answer = connection.getresponse()
        text = answer.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise http.client.HTTPException("its answer is too large")
        if answer.will_close:
            self.close()
        return PeerAnswer(answer.status, answer.headers, text, sent, time.monotonic())

    def _reason(self, error: Exception, seconds: float) -> str:
        if isinstance(error, _UntrustedError):
            return str(error)
        if isinstance(error, TimeoutError):
            return f"no answer within {seconds:g} s"
        if isinstance(error, ConnectionRefusedError):
            return f"nobody listens on {self.peer.url}: no api.listen there, or no daemon"
        if isinstance(error, ssl.SSLError):
            return f"no TLS there ({(error.reason or 'no handshake').replace('_', ' ').lower()})"
        if isinstance(error, OSError):
            return str(error.strerror or error)
        # What it says may be in it: it is shown on terminals.
        return printable(str(error), _TOLD) or "it ended before it answered"


class _UntrustedError(OSError):
    pass


class _Connection(http.client.HTTPConnection):
    def __init__(self, peer: Peer, timeout: float) -> None:
        super().__init__(peer.host, peer.port, timeout=timeout)
        self._fingerprint = peer.fingerprint

    def connect(self) -> None:
        sock = socket.create_connection((self.host, self.port), self.timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Who has the pinned certificate's key is who is meant: the handshake proves that.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            secured = context.wrap_socket(sock)
        except BaseException:
            sock.close()
            raise
        found = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(found, self._fingerprint):
            secured.close()
            raise _UntrustedError(
                f"its certificate is another one than was pinned (sha256:{found[:16]}…); if it was "
                "renewed there, make the peers anew: tula peer add"
            )
        self.sock = secured
