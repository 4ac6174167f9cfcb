"""What stands before a daemon's socket for its clients: TLS and tokens, relayed by a thread.

It stands in for the gateway where that is not what is tested, and can be wrong in every way.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_TLS = 0x16
"""The first byte of a handshake."""
TOKEN = "tula_" + "A" * 43


@dataclass
class Front:
    """``answer``: what it answers itself to everything, instead of relaying; ``seen``: the heads of
    the requests that came."""

    path: Path
    port: int = 0
    tls: bool = True
    answer: bytes | None = None
    seen: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http{'s' * self.tls}://127.0.0.1:{self.port}"


def problem(status: int, message: str, *headers: str) -> bytes:
    """An answer with an error as the gateway gives it."""
    body = json.dumps({"type": "about:blank", "errors": [{"message": message}]}).encode()
    head = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextmanager
def tls_front(path: Path, context: ssl.SSLContext | None) -> Iterator[Front]:
    """Answers on a port of loopback for the daemon of this socket; without a context, plain."""
    front = Front(path, tls=context is not None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        front.port = listening.getsockname()[1]
        thread = threading.Thread(target=_serve, args=(listening, front, context))
        thread.start()
        try:
            yield front
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(30)


def _serve(listening: socket.socket, front: Front, context: ssl.SSLContext | None) -> None:
    while True:
        try:
            plain = listening.accept()[0]
        except OSError:
            return
        plain.settimeout(30)
        with suppress(OSError):
            client = plain if context is None else context.wrap_socket(plain, server_side=True)
            with client:
                _relay(client, front)


def _relay(client: socket.socket, front: Front) -> None:
    head, _, rest = _head(client).partition(b"\r\n\r\n")
    if not head:  # who connected went away
        return
    front.seen.append(head)
    if front.answer is not None:
        client.sendall(front.answer)
        return
    if f"Authorization: Bearer {TOKEN}".encode() not in head.split(b"\r\n"):
        client.sendall(problem(401, "no such token"))
        return
    lines = {k.lower(): v for k, _, v in (x.partition(b": ") for x in head.split(b"\r\n")[1:])}
    missing = int(lines.get(b"content-length", b"0")) - len(rest)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(str(front.path))
        daemon.sendall(head + b"\r\nConnection: close\r\n\r\n" + rest)
        while missing > 0:
            part = client.recv(65536)
            missing -= len(part)
            daemon.sendall(part)
        while part := daemon.recv(65536):
            client.sendall(part)


def _head(client: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found and (part := client.recv(65536)):
        found += part
        if found[0] == _TLS:  # spoken where nobody does
            client.sendall(problem(400, "no request"))
            return b""
    return found
