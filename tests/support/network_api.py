"""Asks a balancer's API over the network, from a host of the lab, as its clients do."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tula.engine.callers import parse_grant
from tula.engine.tokens import TokenStore
from tula.lab import Host

TIMEOUT = 60.0


class _Connection(http.client.HTTPConnection):
    """Over a socket that is connected already."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("tula")
        self._connected = connected

    def connect(self) -> None:
        self.sock = self._connected


@dataclass(frozen=True, slots=True)
class Told:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Api:
    """``address`` and ``port`` as seen from ``host``; ``pin``: the only fingerprint to accept."""

    host: Host
    address: str
    port: int = 8420
    tls: bool = True
    token: str = field(default="", repr=False)
    pin: str = ""

    def connect(self) -> socket.socket:
        """A TCP connection."""
        family = socket.AF_INET if ip_address(self.address).version == 4 else socket.AF_INET6
        opened = self.host.socket(family, socket.SOCK_STREAM)
        opened.settimeout(TIMEOUT)
        opened.connect((self.address, self.port))
        return opened

    def secure(self) -> ssl.SSLSocket:
        """A TLS connection."""
        wrapped = context().wrap_socket(self.connect())
        shown = hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()
        assert self.pin in ("", shown)
        return wrapped

    def fingerprint(self) -> str:
        """SHA-256 of the certificate that is shown."""
        with self.secure() as opened:
            return hashlib.sha256(opened.getpeercert(binary_form=True) or b"").hexdigest()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Told:
        """One request on a connection of its own; ``content_type`` is Content-Type."""
        opened = self.secure() if self.tls else self.connect()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            named.setdefault("authorization", f"Bearer {self.token}")
        connection = _Connection(opened)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Told(answer.status, found, answer.read())
        finally:
            connection.close()
            opened.close()


def context() -> ssl.SSLContext:
    """Trusts whatever it is shown."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def make_token(state: Path, name: str, scope: str, lifetime: float | None = None) -> str:
    """A token of the balancer whose state directory this is."""
    return TokenStore(state).create(name, parse_grant(scope), lifetime, "test")[0]
