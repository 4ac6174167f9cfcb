"""http and https, with good servers and hostile ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.probe_servers import (
    certificate,
    probe,
    repeats,
    says,
    settings,
    tcp_server,
)
from tula.health.check import FailureKind, Outcome
from tula.health.probes.tls import expiry_warning
from tula.model.advice import Admin, GivenWeight, Words


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def asked(serve: object, *, kind: str = "http", **extra: object) -> Outcome:
    async def run() -> Outcome:
        async with tcp_server(serve) as port:
            return await probe(settings(kind, **extra), port)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "wanted", "passed"),
    [
        (200, None, True),
        (204, None, True),
        (302, None, True),
        (404, None, False),
        (503, None, False),
        (404, (404, 410), True),
        (200, (404, 410), False),
    ],
)
def test_the_status_judges(status: int, wanted: tuple[int, ...] | None, passed: bool) -> None:
    extra = {} if wanted is None else {"status": wanted}
    outcome = asked(says(answer(status)), **extra)
    assert outcome.passed is passed
    said = f"status {status}"
    words = "200 to 399" if wanted is None else "404 or 410"
    assert outcome.evidence.endswith(said if passed else f"{said}, wanted {words}")


def test_the_verdict_does_not_wait_for_a_body() -> None:
    assert asked(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", close=False)).passed


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("serve", "passed"),
    [
        (says(answer(200, b"all is ready now")), True),
        (says(answer(200, b"all is lost")), False),
        (says(b"HTTP/1.1 200 OK\r\n\r\nis ready", close=True), True),
        (says(CHUNKED + b"6\r\nall is\r\n6\r\n ready\r\n0\r\n\r\n"), True),
        (says(CHUNKED + b"3\r\nall\r\n0\r\n\r\n"), False),
        (says(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(200, b"is ready")), True),
    ],
)
def test_text_in_the_body(serve: object, passed: bool) -> None:
    assert asked(serve, body="is ready").passed is passed


@pytest.mark.parametrize(
    ("serve", "evidence"),
    [
        (says(b""), "closed without an answer"),
        (says(b"HTTP/1.1 200 OK\r\n"), "closed in the headers"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\x1b[31m"), "closed in the headers"),
        (says(b"\x00\xff" * 5000), "invalid HTTP response"),
        (says(answer(200, b"x", "Content-Encoding: gzip")), "the body is in gzip"),
        (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"), "invalid HTTP response"),
        (repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000), "invalid HTTP response"),
        (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more than 8 interim answers"),
        (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000), "first 65536 bytes do not hold"),
        (repeats(CHUNKED, b"1\r\nx\r\n"), "first 65536 bytes do not hold"),
        (says(CHUNKED + b"zz\r\n"), "invalid HTTP response"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"), "invalid HTTP response"),
    ],
)
def test_hostile_answers_fail_with_a_reason(serve: object, evidence: str) -> None:
    outcome = asked(serve, body="is ready", timeout=60.0)
    assert (outcome.passed, outcome.failure) == (False, FailureKind.ANSWER)
    assert evidence in outcome.evidence
    assert outcome.evidence.isprintable()
    assert len(outcome.evidence) < 300


@pytest.mark.parametrize(
    ("serve", "stage"),
    [
        (says(close=False), "connected, but no answer"),
        (repeats(b"", b"H", 0.02), ""),
        (repeats(CHUNKED, b"1\r\nx\r\n", 0.02), "status 200, but its body"),
    ],
)
def test_what_is_slow_ends_at_the_timeout(serve: object, stage: str) -> None:
    outcome = asked(serve, body="is ready", timeout=0.15)
    assert outcome.passed is False
    assert stage in outcome.evidence


def test_what_is_asked() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(200))

    async def run() -> None:
        async with tcp_server(serve, "::1") as port:
            headers = (("X-Probe", "tula"), ("accept", "text/plain"))
            plain = settings("http", path="/healthz?a=b")
            named = settings("http", host="www.example.org", headers=headers)
            assert (await probe(plain, port, "::1")).passed
            assert (await probe(named, port, "::1")).passed
            assert heard[0].startswith(b"GET /healthz?a=b HTTP/1.1\r\n")
            assert f"Host: [::1]:{port}\r\n".encode() in heard[0]
            assert b"Connection: close\r\n" in heard[0]
            assert b"Host: www.example.org\r\n" in heard[1]
            assert b"X-Probe: tula\r\n" in heard[1]
            assert heard[1].lower().count(b"accept:") == 1

    asyncio.run(run())


def https(folder: Path, name: str, days: float, **extra: object) -> Outcome:
    async def run() -> Outcome:
        async with tcp_server(says(answer(200)), tls=certificate(folder, name, days)) as port:
            return await probe(settings("https", **extra), port)

    return asyncio.run(run())


def test_https(tmp_path: Path) -> None:
    outcome = https(tmp_path, "www.example.org", 90, host="www.example.org")
    assert outcome.passed
    assert outcome.warning == ""


def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path) -> None:
    soon = https(tmp_path, "www.example.org", 3.2, host="www.example.org:8443")
    assert soon.passed
    assert soon.warning.startswith("the certificate expires on ")
    assert soon.warning.endswith(", in 3 days")
    assert https(tmp_path, "a", 3.2, expires_within=86400.0).warning == ""
    gone = https(tmp_path, "a", -1)
    assert gone.passed
    assert gone.warning.startswith("the certificate expired on ")


def test_a_certificate_is_verified_when_asked_for(tmp_path: Path) -> None:
    outcome = https(tmp_path, "www.example.org", 90, host="www.example.org", verify=True)
    assert (outcome.passed, outcome.failure) == (False, FailureKind.ANSWER)
    assert "certificate: self-signed certificate" in outcome.evidence


def test_https_hears_the_name(tmp_path: Path) -> None:
    heard: list[str | None] = []
    context = certificate(tmp_path, "a", 90)
    context.sni_callback = lambda _tls, name, _context: heard.append(name)

    async def run() -> None:
        async with tcp_server(says(answer(200)), tls=context) as port:
            assert (await probe(settings("https", host="www.example.org"), port)).passed
            assert (await probe(settings("https"), port)).passed

    asyncio.run(run())
    assert heard == ["www.example.org", None]


@pytest.mark.parametrize(
    ("serve", "evidence"),
    [
        (says(b"HTTP/1.1 400 Bad\r\n\r\n", after_request=False), "no TLS: "),
        (says(after_request=False), "connection reset by peer"),
    ],
)
def test_no_tls(serve: object, evidence: str) -> None:
    outcome = asked(serve, kind="https")
    assert (outcome.passed, outcome.failure) == (False, FailureKind.ANSWER)
    assert evidence in outcome.evidence


def test_a_name_that_tls_cannot_have_fails() -> None:
    outcome = asked(says(after_request=False), kind="https", host=".example." + "a" * 70)
    assert outcome.passed is False
    assert "is not a valid name for TLS" in outcome.evidence


def test_tls_that_keeps_still_ends_at_the_timeout() -> None:
    outcome = asked(says(close=False, after_request=False), kind="https", timeout=0.1)
    assert outcome.failure is FailureKind.SILENT


def test_no_certificate_is_no_warning() -> None:
    assert expiry_warning(None, 1.0) == ""
    assert expiry_warning(b"garbage", 1.0) == ""


@pytest.mark.parametrize(
    ("body", "weight"),
    [(b"30", GivenWeight(30)), (b"\n 75%\r\n", GivenWeight(75, percent=True))],
)
def test_the_body_gives_a_weight(body: bytes, weight: GivenWeight) -> None:
    outcome = asked(says(answer(200, body), close=False), weight_from="body")
    assert (outcome.passed, outcome.words) == (True, Words(weight))
    assert outcome.evidence.endswith(f": status 200, weight {weight}")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            answer(200, b"heavy"),
            "status 200, but the body is no weight: 'heavy'; wanted 0 to 65535",
        ),
        (answer(200), "the body is no weight: nothing"),
        (answer(200, b"99999"), "no weight: '99999'"),
        (answer(200, b"1" * 100_000), f"no weight: '{'1' * 40}...'"),
        (answer(200, b"50\x1b[2J"), "no weight: '50"),
        (answer(200, b"50", "Content-Encoding: gzip"), "the body is in gzip"),
        (answer(503, b"50"), "status 503, wanted 200 to 399"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n5", "invalid HTTP response"),
    ],
)
def test_what_is_no_weight_fails(said: bytes, why: str) -> None:
    outcome = asked(says(said), weight_from="body")
    assert (outcome.passed, outcome.words) == (False, None)
    assert why in outcome.evidence
    assert outcome.evidence.isprintable()
    assert len(outcome.evidence) < 300


def test_a_weight_without_end_is_not_read_to_its_end() -> None:
    endless = repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"1" * 1000)
    assert "no weight: '111" in asked(endless, weight_from="body").evidence
    slow = says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n5", close=False)
    outcome = asked(slow, weight_from="body", timeout=0.3)
    assert outcome.passed is False
    assert "its body did not end" in outcome.evidence


@pytest.mark.parametrize(
    "more", [{}, {"body": "fine"}, {"weight_from": "body"}, {"status": (200,)}]
)
def test_a_status_that_drains_passes_whatever_else_is_wanted(more: dict[str, object]) -> None:
    outcome = asked(says(answer(404, b"no")), drain_on=(404, 410), **more)
    assert outcome.passed
    assert outcome.drains
    assert outcome.words == Words(admin=Admin.DRAIN, cause="answered 404")
    assert outcome.evidence.endswith("status 404, which drains it")
    other = asked(says(answer(403)), drain_on=(404, 410), **more)
    assert (other.passed, other.words) == (False, None)
    assert not asked(says(answer(200, b"fine")), drain_on=(404,)).drains
