"""The way to a daemon on another machine: HTTPS with a token, to a certificate that is checked.

The token is sent only after the certificate was: by its fingerprint where one is pinned, which
makes its name and its dates no matter, otherwise by the authorities. Proxies of the environment
are not used: ``http.client`` knows none.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tula.cli.client import Answer, DaemonError
from tula.cli.token_file import WrongError

_CONNECT = 10.0
"""Seconds for each address to answer in, of those that the name has."""
_EXPIRED, _NOT_YET = 10, 9
_NAMES = frozenset({62, 64})
"""X509_V_ERR_… of openssl/x509_vfy.h: out of date, and of another host or address."""

_GATEWAY = frozenset({408, 431, 502, 503, 504})
"""Answers that are more about the way than about what was asked."""


class UntrustedError(OSError):
    """The certificate is not one that may be spoken to; the message is one line."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a balancer answers."""

    url: str
    host: str
    port: int
    tls: bool


def parse_server(text: str, where: str) -> Address:
    """``https://HOST:PORT``; plain http only to this machine itself. Raises WrongError."""
    example = "such as https://lb1:8420, or https://[2001:db8::1]:8420"
    if "://" not in text:
        raise WrongError(f"{where}: {text!r} is no URL; give one {example}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise WrongError(f"{where}: {text!r} is no valid URL; give one {example}") from None
    if parts.username is not None or parts.password is not None:
        raise WrongError(f"{where}: the URL of a server has no user; who asks is told by the token")
    if parts.scheme not in ("http", "https") or not host:
        raise WrongError(f"{where}: {text!r} is no URL of a server; give one {example}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise WrongError(f"{where}: {text!r}: leave out what follows the port")
    tls = parts.scheme == "https"
    if not tls and not _is_loopback(host):
        raise WrongError(
            f"{where}: {text!r}: over plain http anybody on the way could read the token; "
            "use https://"
        )
    shown = f"[{host}]" if ":" in host else host
    given = "" if port is None else f":{port}"
    return Address(f"{parts.scheme}://{shown}{given}", host, port or (443 if tls else 80), tls)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Server:
    """A ``Way`` to a balancer. ``authorities``: a file of certificates instead of the system's;
    ``fingerprints``: those of the certificates to accept, instead of any authority."""

    address: Address
    token: str = field(repr=False)
    token_file: Path
    fingerprints: frozenset[str] = frozenset()
    authorities: Path | None = None

    @property
    def name(self) -> str:
        return self.address.url

    @property
    def host(self) -> str:
        """The machine."""
        return self.address.host

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def open(self, timeout: float) -> http.client.HTTPConnection:
        return _Connection(self, timeout)

    def explain(self, error: OSError, timeout: float) -> Exception:
        return DaemonError(0, [{"message": f"{self.name}: {self._reason(error, timeout)}"}])

    def place(self, message: str, answer: Answer, /) -> str:
        if answer.status in (401, 403):
            return f"{self.name}: {message} (the token in {self.token_file})"
        if answer.status == 429:
            seconds = answer.headers.get("Retry-After")
            wait = f"; ask again in {seconds} s" if seconds else ""
            return f"{self.name}: {message}{wait}"
        return f"{self.name}: {message}" if answer.status in _GATEWAY else message

    def _reason(self, error: OSError, timeout: float) -> str:
        if isinstance(error, UntrustedError):
            return str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._distrust(error)
        if isinstance(error, ssl.SSLError):
            return f"no TLS here that this machine accepts ({_ssl_reason(error)})"
        if isinstance(error, socket.gaierror):
            return f"no address is known for {self.address.host} ({error.strerror})"
        if isinstance(error, TimeoutError):
            return f"no answer within {timeout:g} s; traffic goes on without it"
        if isinstance(error, ConnectionRefusedError):
            return (
                f"nobody listens on port {self.address.port}; on the balancer, tula status tells "
                "whether its api.listen is in force"
            )
        if isinstance(error, ConnectionError) and not self.address.tls:
            return f"{error.strerror or error}; if TLS is spoken there, use https://"
        return str(error.strerror or error)

    def _distrust(self, error: ssl.SSLCertVerificationError) -> str:
        host = self.address.host
        if error.verify_code in (_EXPIRED, _NOT_YET):
            when = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
            return f"its certificate {when}; renew it on the balancer, or compare the clocks"
        if error.verify_code in _NAMES:
            return (
                f"its certificate is not for {host}; use a name that it has, or pin it: "
                "--fingerprint"
            )
        by = self.authorities or "the authorities that this machine trusts"
        return (
            f"its certificate is not signed by {by} ({error.verify_message}); pin it: a line "
            "sha256:… in the token file, or --fingerprint, as tula token shows on the balancer"
        )


def check_authorities(path: Path) -> None:
    """Raises WrongError unless the file has certificates."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise WrongError(f"{path}: no certificate (PEM) in it") from None
    except OSError as error:
        raise WrongError(f"{path}: {error.strerror or error}") from None


def _ssl_reason(error: ssl.SSLError) -> str:
    return (error.reason or "no handshake").replace("_", " ").lower()


class _Connection(http.client.HTTPConnection):
    """Connected only when the certificate is the right one."""

    def __init__(self, server: Server, timeout: float) -> None:
        address = server.address
        super().__init__(address.host, address.port, timeout=timeout)
        self._server = server

    def connect(self) -> None:
        address, timeout = self._server.address, self.timeout
        assert timeout is not None
        sock = socket.create_connection((address.host, address.port), min(timeout, _CONNECT))
        try:
            sock.settimeout(timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._secure(sock) if address.tls else sock
        except BaseException:
            sock.close()
            raise

    def _secure(self, sock: socket.socket) -> socket.socket:
        server = self._server
        secured = _context(server).wrap_socket(sock, server_hostname=server.address.host)
        if server.fingerprints:
            try:
                _require_pinned(secured, server)
            except BaseException:
                secured.close()
                raise
        return secured


def _context(server: Server) -> ssl.SSLContext:
    if server.fingerprints:
        # Who has the pinned certificate's key is who is meant: the handshake proves that.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=server.authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _require_pinned(sock: ssl.SSLSocket, server: Server) -> None:
    certificate: Any = sock.getpeercert(binary_form=True)
    found = hashlib.sha256(certificate or b"").hexdigest()
    if not any(hmac.compare_digest(found, wanted) for wanted in server.fingerprints):
        raise UntrustedError(
            f"its certificate is another one than was pinned: it is sha256:{found}; if that is "
            "what tula token shows on the balancer, pin it instead, else somebody is in between"
        )
