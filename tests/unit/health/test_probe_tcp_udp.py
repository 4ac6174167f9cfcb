"""tcp and udp, with servers that answer, refuse, keep still and say too much."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from support.probe_servers import (
    closed_port,
    probe,
    repeats,
    says,
    settings,
    tcp_server,
    udp_server,
)
from tula.health.check import FailureKind

ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


@ADDRESSES
def test_a_port_that_listens_passes(address: str) -> None:
    async def run() -> None:
        async with tcp_server(says(after_request=False), address) as port:
            outcome = await probe(settings("tcp"), port, address)
        assert outcome.passed
        assert outcome.evidence == f"tcp to {address} port {port}: connected"
        assert outcome.seconds > 0

    asyncio.run(run())


@ADDRESSES
def test_a_port_that_does_not_listen_fails(address: str) -> None:
    port = closed_port(address)
    outcome = asyncio.run(probe(settings("tcp"), port, address))
    assert (outcome.passed, outcome.failure) == (False, FailureKind.REFUSED)
    assert outcome.evidence == f"tcp to {address} port {port}: connection refused"


def test_no_connection_is_left_in_time_wait() -> None:
    async def run() -> list[str]:
        async with tcp_server(says(close=False, after_request=False)) as port:
            for _ in range(20):
                assert (await probe(settings("tcp"), port)).passed
            with open("/proc/self/net/tcp") as table:  # noqa: PTH123 - no path, the kernel
                return [line for line in table if f":{port:04X} 06 " in line.replace("  ", " ")]

    assert asyncio.run(run()) == []


def test_a_backlog_that_is_full_is_silence() -> None:
    async def run() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                outcome = await probe(settings("tcp", timeout=0.1), port)
        assert (outcome.passed, outcome.failure) == (False, FailureKind.SILENT)
        assert outcome.evidence == f"tcp to 127.0.0.1 port {port}: no answer within 0.1 s"

    asyncio.run(run())


async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in await reader.read(100):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    await asyncio.sleep(60)


def test_what_is_sent_is_answered_as_expected() -> None:
    async def run() -> None:
        async with tcp_server(echoes) as port:
            assert (await probe(settings("tcp", send="PING", expect="ING"), port)).passed
            outcome = await probe(settings("tcp", timeout=0.1, send="P", expect="PONG"), port)
        assert outcome.evidence.endswith("connected, but no answer with 'PONG' within 0.1 s")
        assert outcome.failure is FailureKind.SILENT

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "evidence"),
    [
        (says(b"no\x07\n", after_request=False), "answered no\\x07, wanted 'PONG'"),
        (says(after_request=False), "answered nothing, wanted 'PONG'"),
        (says(b"x" * 1_000_000, after_request=False), "wanted 'PONG'"),
    ],
)
def test_another_answer_fails(answer: object, evidence: str) -> None:
    async def run() -> None:
        async with tcp_server(answer) as port:
            outcome = await probe(settings("tcp", expect="PONG"), port)
        assert (outcome.passed, outcome.failure) == (False, FailureKind.ANSWER)
        assert evidence in outcome.evidence
        assert len(outcome.evidence) < 300

    asyncio.run(run())


def test_a_drip_ends_at_the_timeout() -> None:
    async def run() -> None:
        async with tcp_server(repeats(b"", b".", 0.01)) as port:
            request = settings("tcp", timeout=0.15, send="\r\n\r\n", expect="PONG")
            outcome = await probe(request, port)
        assert outcome.failure is FailureKind.SILENT

    asyncio.run(run())


@ADDRESSES
def test_udp_answers(address: str) -> None:
    async def run() -> None:
        async with udp_server(lambda data: [b"<" + data + b">"], address) as port:
            right = await probe(settings("udp", send="PING", expect="<PING>"), port, address)
            any_answer = await probe(settings("udp", send="PING"), port, address)
            wrong = await probe(settings("udp", send="PING", expect="PONG"), port, address)
        assert right.passed
        assert any_answer.passed
        assert right.evidence.endswith(": answered")
        assert (wrong.passed, wrong.failure) == (False, FailureKind.ANSWER)
        assert wrong.evidence.endswith("answered <PING>, wanted 'PONG'")

    asyncio.run(run())


@ADDRESSES
def test_udp_that_is_refused_fails(address: str) -> None:
    for extra in ({}, {"expect": "PONG"}):
        outcome = asyncio.run(probe(settings("udp", **extra), closed_port(address), address))
        assert (outcome.passed, outcome.failure) == (False, FailureKind.REFUSED)


def test_udp_silence_passes_unless_an_answer_is_expected() -> None:
    async def run() -> None:
        async with udp_server(lambda _: []) as port:
            silent = await probe(settings("udp", timeout=0.05), port)
            awaited = await probe(settings("udp", timeout=0.05, expect="PONG"), port)
        assert silent.passed
        assert silent.evidence.endswith("not refused within 0.05 s")
        assert (awaited.passed, awaited.failure) == (False, FailureKind.SILENT)

    asyncio.run(run())


def test_a_loop_that_stood_still_says_nothing_of_the_backend() -> None:
    async def run() -> None:
        async with udp_server(lambda _: []) as port:
            asyncio.get_running_loop().call_later(0.01, time.sleep, 0.25)
            outcome = await probe(settings("udp", timeout=0.05, expect="PONG"), port)
        assert (outcome.passed, outcome.failure) == (None, None)
        assert outcome.evidence.endswith("this machine was too busy to receive an answer")

    asyncio.run(run())
