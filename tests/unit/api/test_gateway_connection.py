"""One connection's requests: bounded in time and size, and taken apart in one way only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tula.api.gateway import connection as module
from tula.api.gateway.answers import Answer, refusal
from tula.api.gateway.connection import Connection, Head, Stream
from tula.api.gateway.limits import Budget

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


def talk(sent: bytes, *, budget: Budget | None = None, wait: bool = False) -> tuple[bytes, list]:
    """What a connection answers to these bytes; heads, bodies and reasons that it saw."""
    seen: list = []

    async def handle(head: Head, connection: Connection) -> Answer | Stream:
        seen.append((head.method, head.target))
        if head.path == "/early":
            raise refusal(401, "who are you?", "no-token")
        body = await connection.read_body(head)
        seen.append(body)
        return Answer(200, [(b"content-type", b"text/plain")], b"done")

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        connection = Connection(reader, writer, "192.0.2.1", budget or Budget())
        serving = asyncio.create_task(
            connection.run(handle, lambda *refused: seen.append(refused[2]))
        )
        serving.add_done_callback(lambda _: writer.close())
        client, sender = await asyncio.open_connection(sock=ours)
        sender.write(sent)
        if not wait:
            sender.write_eof()
        told = await client.read()
        await serving
        sender.close()
        return told

    return asyncio.run(main()), seen


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: lb", *headers, "", ""]).encode() + body


def test_requests_one_after_the_other() -> None:
    both = request("GET /a") + request("POST /b", "Content-Length: 3", body=b"abc")
    told, seen = talk(both)
    assert seen == [("GET", "/a"), b"", ("POST", "/b"), b"abc"]
    assert told.count(b"HTTP/1.1 200 OK\r\n") == 2


def test_chunks_come_together() -> None:
    body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    _, seen = talk(request("POST /b", "Transfer-Encoding: chunked", body=body))
    assert seen[1] == b"abcde"


def test_a_head_has_no_body() -> None:
    told, _ = talk(request("HEAD /a"))
    assert b"content-length: 4" in told
    assert told.endswith(b"\r\n\r\n")


def test_who_waits_to_be_told_is_told() -> None:
    headers = ("Content-Length: 1", "Expect: 100-continue")
    told, seen = talk(request("POST /b", *headers, body=b"x"))
    assert told.startswith(b"HTTP/1.1 100 ")
    assert seen[1] == b"x"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (request("GET http://lb/a"), 400),
        (request("GET a"), 400),
        (request("GET /a#b"), 400),
        (request("TRACE /a"), 501),
        (request("GET /a", "X: " + "a" * 20000), 431),
        (request("POST /a", "Content-Length: 3", "Transfer-Encoding: chunked"), 400),
        (request("POST /a", "Content-Length: 3", "Content-Length: 4"), 400),
        (request("POST /a", "Content-Length: -3"), 400),
        (request("POST /a", "Content-Length: 70000"), 413),
        (request("POST /a", "Transfer-Encoding: gzip, chunked"), 501),
        (request("POST /a", "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
    ],
)
def test_what_is_malformed_ends_the_connection(sent: bytes, status: int) -> None:
    told, seen = talk(sent + request("GET /smuggled"))
    assert int(told.split()[1]) in (status, 400)
    assert told.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in told
    assert b"application/problem+json" in told
    assert ("GET", "/smuggled") not in seen
    assert seen[-1] in ("malformed", "too-large")


def test_a_large_configuration_is_taken_and_a_larger_one_is_not() -> None:
    large = b"x" * (1 << 20)
    yaml = "Content-Type: application/yaml"
    _, seen = talk(request("POST /b", yaml, f"Content-Length: {len(large)}", body=large))
    assert seen[1] == large
    told, _ = talk(request("POST /b", yaml, f"Content-Length: {(16 << 20) + 1}"))
    assert b" 413 " in told
    chunk = b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n"
    told, _ = talk(request("POST /b", "Transfer-Encoding: chunked", body=chunk), wait=True)
    assert b" 413 " in told


def test_an_answer_before_the_body_ends_the_connection() -> None:
    told, seen = talk(request("POST /early", "Content-Length: 5", body=b"abcde"))
    assert b" 401 " in told
    assert b"connection: close" in told
    assert seen == [("POST", "/early"), "no-token"]
    told, seen = talk(request("GET /early") + request("GET /a"))
    assert seen == [("GET", "/early"), "no-token", ("GET", "/a"), b""]


def test_slow_clients_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BODY", "FIRST_REQUEST", "HEADER", "IDLE"):
        monkeypatch.setattr(module, name, 0.2)
    told, seen = talk(b"GET /a HTTP/1.1\r\nX: ", wait=True)
    assert b" 408 " in told
    told, seen = talk(b"", wait=True)
    assert told == b""
    told, seen = talk(request("GET /a"), wait=True)
    assert told.count(b"HTTP/1.1 ") == 1
    told, seen = talk(request("GET /a") + b"GET", wait=True)
    assert b" 408 " in told
    told, seen = talk(request("POST /a", "Content-Length: 9", body=b"x"), wait=True)
    assert b" 408 " in told
    assert seen == [("POST", "/a"), "slow"]


def test_bodies_share_what_memory_there_is() -> None:
    budget = Budget(10)
    told, _ = talk(request("POST /b", "Content-Length: 11", body=b"x" * 11), budget=budget)
    assert b" 503 " in told
    assert b"retry-after" in told
    talk(request("POST /b", "Content-Length: 10", body=b"x" * 10), budget=budget)
    assert budget.left == 10
