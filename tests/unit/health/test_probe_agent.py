"""agent: real agents on a loopback address, good ones and hostile ones."""

from __future__ import annotations

import asyncio

import pytest

from support.probe_servers import Serve, closed_port, probe, repeats, says, settings, tcp_server
from tula.health.check import Outcome
from tula.model.advice import Admin, GivenWeight, Words


def asked(serve: Serve, *, timeout: float = 5.0, **own: object) -> Outcome:
    async def run() -> Outcome:
        async with tcp_server(serve) as port:
            return await probe(settings("agent", timeout=timeout, port=port, **own), port)

    return asyncio.run(run())


def line(*parts: bytes, close: bool = True) -> Serve:
    return says(*parts, close=close, after_request=False)


@pytest.mark.parametrize(
    ("parts", "words", "evidence"),
    [
        ((b"75%\n",), Words(GivenWeight(75, percent=True)), "75%"),
        ((b"dra", b"in", b"\r\nup\n"), Words(admin=Admin.DRAIN, cause="says drain"), "drain"),
        ((b"down #disk full\n",), Words(up=False), "down #disk full"),
        ((b"\n",), Words(), "an empty line"),
    ],
)
def test_the_first_line_counts(parts: tuple[bytes, ...], words: Words, evidence: str) -> None:
    outcome = asked(line(*parts, close=False))
    assert (outcome.passed, outcome.words, outcome.warning) == (True, words, "")
    assert outcome.evidence.endswith(f": {evidence}")


def test_it_is_sent_a_line_to_ask_by() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up #" + await reader.readline())

    assert asked(serve, send="web/b1").evidence.endswith(": up #web/b1")


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (line(b"down"), "'down' without the end of a line, which does not count"),
        (line(), "the agent says nothing without the end of a line"),
        (line(b"x" * 5000), "the agent's line does not end within 4096 bytes"),
        (line(b"\xff\x00\x1b[2J"), "without the end of a line"),
    ],
)
def test_what_is_no_line_changes_nothing(serve: Serve, why: str) -> None:
    outcome = asked(serve)
    assert (outcome.passed, outcome.words, outcome.failure) == (None, None, None)
    assert why in outcome.evidence
    assert outcome.evidence.isprintable()


def test_no_answer_changes_nothing() -> None:
    silent = asked(line(close=False), timeout=0.2)
    assert silent.passed is None
    assert silent.evidence.endswith("connected, but no line within 0.2 s")

    port = closed_port()
    refused = asyncio.run(probe(settings("agent", port=port), port))
    assert (refused.passed, refused.words) == (None, None)
    assert refused.evidence.endswith("connection refused")


def test_an_endless_line_is_not_read_to_its_end() -> None:
    outcome = asked(repeats_line())
    assert "does not end within" in outcome.evidence


def repeats_line() -> Serve:
    endless = repeats(b"", b"up " * 1000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader.feed_data(b"\r\n\r\n")
        await endless(reader, writer)

    return serve


def test_words_that_are_none_are_a_warning() -> None:
    outcome = asked(line(b"up lean\x1b[31m\n"))
    assert outcome.words == Words(up=True)
    assert outcome.warning == r"the agent says 'lean\\x1b[31m', which is no word of agent-check"
