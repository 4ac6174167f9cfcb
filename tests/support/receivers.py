"""Real receivers of notifications, good and bad: HTTP and SMTP servers in threads."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

Talk = Callable[[socket.socket], None]


@dataclass
class Receiver:
    """A listening server; ``got`` is what has arrived whole, ``connections`` how often anybody
    came."""

    port: int
    got: list[Any] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    answers: list[str] = field(default_factory=list)
    """what the next ones are answered; 200 when there is none left"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/s3cret"


@contextmanager
def serving(talk: Callable[[Receiver, socket.socket], None]) -> Iterator[Receiver]:
    """A server on loopback; each connection is talked to in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Receiver(listening.getsockname()[1])
        open_now: list[socket.socket] = []

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError, ssl.SSLError, ValueError):
                talk(made, connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    made.connections += 1
                    open_now.append(connection)
                    threading.Thread(target=one, args=[connection], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            for each in (listening, *open_now):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            thread.join()


def web(made: Receiver, connection: socket.socket) -> None:
    """Takes one POST, and answers as it was told to."""
    with connection.makefile("rb") as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return
            head += line
        lines = head.decode().split("\r\n")
        length = next(int(e[15:]) for e in lines if e.lower().startswith("content-length:"))
        body = stream.read(length)
    answer = made.answers.pop(0) if made.answers else "200 OK"
    if answer.startswith("2"):
        made.heads.append(head.decode())
        made.got.append(json.loads(body))
    connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())


def mute(_: Receiver, connection: socket.socket) -> None:
    """Reads, and says nothing until the other end goes."""
    while connection.recv(65536):
        pass


def endless(_: Receiver, connection: socket.socket) -> None:
    """An answer without end."""
    connection.sendall(b"HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def dribbling(_: Receiver, connection: socket.socket) -> None:
    """A byte now and then, never to an end: a tarpit."""
    ticking = threading.Event()
    while True:
        connection.sendall(b"2")
        ticking.wait(0.05)


def smtp(made: Receiver, connection: socket.socket) -> None:
    """Takes mails (RFC 5321); ``answers`` are for RCPT TO."""
    connection.sendall(b"220 stub\r\n")
    rcpt: list[str] = []
    with connection.makefile("rb") as stream:
        while line := stream.readline():
            word = line.split()[0].upper() if line.split() else b""
            if word == b"EHLO":
                connection.sendall(b"250-stub\r\n250 8BITMIME\r\n")
            elif word == b"RCPT":
                answer = made.answers.pop(0) if made.answers else "250 ok"
                rcpt.append(line.decode().strip())
                connection.sendall(f"{answer}\r\n".encode())
            elif word == b"DATA":
                connection.sendall(b"354 go\r\n")
                text = b""
                while not text.endswith(b"\r\n.\r\n"):
                    text += stream.readline()
                made.got.append(text.decode())
                made.heads.append("\n".join(rcpt))
                connection.sendall(b"250 taken\r\n")
            elif word == b"QUIT":
                connection.sendall(b"221 bye\r\n")
                return
            else:
                connection.sendall(b"250 ok\r\n")


def secured(talk: Callable[[Receiver, socket.socket], None], context: ssl.SSLContext) -> Any:
    """The same over TLS."""

    def wrapped(made: Receiver, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            talk(made, inner)

    return wrapped
