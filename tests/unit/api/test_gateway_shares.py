"""What one client asks for does not keep an operator from a change."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tula.api.gateway.answers import Answer, RefusalError
from tula.api.gateway.connection import Connection, Head
from tula.api.gateway.limits import (
    BODY_BYTES,
    PLANS,
    PLANS_WAITING,
    SMALL_BODIES_BYTES,
    Answers,
    Budget,
)
from tula.api.gateway.tls import Certificate
from tula.api.gateway.upstream import Forwarded, Upstream

HEAD = b"POST /p HTTP/1.1\r\nHost: lb\r\nContent-Type: application/yaml\r\n"


def post(sent: bytes, budget: Budget, *, large: bool = True) -> tuple[bytes, int]:
    """The beginning of the answer to it, and how much of the budget was left meanwhile."""
    seen: list[int] = []

    async def handle(head: Head, connection: Connection) -> Answer:
        await connection.read_body(head, large=large)
        seen.append(budget.left)
        return Answer(200)

    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        serving = asyncio.create_task(
            Connection(reader, writer, "192.0.2.1", budget).run(handle, lambda *_: None)
        )
        client, sender = await asyncio.open_connection(sock=ours)
        sender.write(sent)
        told = await client.readuntil(b"\r\n")
        seen.append(budget.left)
        sender.close()
        await serving
        return told

    return asyncio.run(main()), seen[0]


def test_a_body_takes_what_has_come_of_it() -> None:
    budget = Budget(SMALL_BODIES_BYTES + BODY_BYTES)
    told, left = post(HEAD + b"Content-Length: 10\r\n\r\n" + b"x" * 10, budget)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert left == SMALL_BODIES_BYTES + BODY_BYTES - 10
    chunk = b"%x\r\n%b\r\n" % (BODY_BYTES, b"x" * BODY_BYTES)
    told, _ = post(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 2, budget)
    assert told.startswith(b"HTTP/1.1 503 ")
    assert budget.left == SMALL_BODIES_BYTES + BODY_BYTES


def test_small_bodies_have_room_of_their_own() -> None:
    budget = Budget(SMALL_BODIES_BYTES)
    length = b"Content-Length: %d\r\n\r\n"
    told, _ = post(HEAD + length % BODY_BYTES + b"x" * BODY_BYTES, budget)
    assert told.startswith(b"HTTP/1.1 200 ")
    told, _ = post(HEAD + length % (BODY_BYTES + 1) + b"x" * (BODY_BYTES + 1), budget)
    assert told.startswith(b"HTTP/1.1 503 ")


def test_a_configuration_by_any_of_its_names() -> None:
    head, length = HEAD.replace(b"application/yaml", b"text/yaml"), BODY_BYTES + 1
    told, _ = post(head + b"Content-Length: %d\r\n\r\n" % length + b"x" * length, Budget())
    assert told.startswith(b"HTTP/1.1 200 ")


def test_a_fifo_is_no_certificate(tmp_path: Path) -> None:
    for name in ("c.pem", "k.pem"):
        os.mkfifo(tmp_path / name)
    found = Certificate(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    assert found.refresh()
    assert "not a regular file" in found.problem


def test_who_may_not_plan_sends_no_configuration() -> None:
    told, _ = post(HEAD + b"Content-Length: %d\r\n\r\n" % (BODY_BYTES + 1), Budget(), large=False)
    assert told.startswith(b"HTTP/1.1 413 ")


def test_plans_wait_for_each_other_and_changes_do_not(tmp_path: Path) -> None:
    path = str(tmp_path / "tula.sock")
    asked, go = list[str](), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
        asked.append(line)
        if "plan" in line:
            await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_unix_server(serve, path):
            upstream = Upstream(path)

            def ask(target: str) -> asyncio.Task[Answer]:
                return asyncio.create_task(upstream.ask(Forwarded("POST", target, ())))

            targets = ["/api/v1/plan", "/api/v1/pl%61n?force=true"]
            plans = [ask(targets[n % 2]) for n in range(PLANS + PLANS_WAITING)]
            await asyncio.sleep(0)
            with pytest.raises(RefusalError) as refused:
                await ask("/api/v1/plan")
            assert refused.value.answer.status == 503
            assert (await ask("/api/v1/services/web/backends/b/drain")).status == 200
            assert len([line for line in asked if "drain" not in line]) <= PLANS
            go.set()
            assert {answer.status for answer in await asyncio.gather(*plans)} == {200}

    asyncio.run(main())


def test_slow_readers_of_large_answers_go_for_the_newest() -> None:
    answers, gone = Answers(most=100), list[str]()
    status = b"x" * 60
    first = answers.hold(status, lambda: gone.append("first"))
    second = answers.hold(status, lambda: gone.append("second"))
    assert answers.size == 60  # the same for both
    third = answers.hold(b"y" * 40, lambda: gone.append("third"))
    assert (answers.size, gone) == (100, [])
    answers.release(second)
    large = answers.hold(b"z" * 200, lambda: gone.append("large"))
    assert gone == ["first", "third"]
    for each in (first, second, third, large, large):
        answers.release(each)
    assert answers == Answers(most=100)
