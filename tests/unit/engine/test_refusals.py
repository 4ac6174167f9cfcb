"""Refused requests: how many an address may try, and what the log says."""

from __future__ import annotations

import pytest

from tula.engine.refusals import FailedAttempts, RefusalLog, client_key, loggable_path


class Clock:
    """Seconds that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_what_is_one_client(address: str, key: str) -> None:
    assert client_key(address) == key


def test_failed_attempts_of_one_client_are_limited() -> None:
    clock = Clock()
    attempts = FailedAttempts(clock)
    assert [attempts.note(f"2001:db8::{n:x}") for n in range(20)] == [0.0] * 20
    assert 0 < attempts.note("2001:db8::ffff") <= 3
    assert attempts.note("2001:db8:0:1::1") == 0, "another network"
    clock.now += 3.1
    assert attempts.note("2001:db8::1") == 0
    assert attempts.note("2001:db8::1") > 0
    clock.now -= 500
    assert attempts.note("2001:db8::1") > 0, "a clock that goes back gives nothing"


def test_memory_is_bounded() -> None:
    attempts, log = FailedAttempts(Clock()), RefusalLog(lambda *_: None, Clock())
    for n in range(10_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        attempts.note(address)
        log.note(address, "/", "no-token")
    assert len(attempts._of._of) <= 4096
    assert len(log._of._of) <= 4096
    assert len(log._unlogged) <= 4096
    assert log.counts == {"no-token": 10_000}


def test_lines_are_limited_and_say_what_they_leave_out() -> None:
    clock, lines = Clock(), list[tuple[str, str, str, int]]()
    log = RefusalLog(lambda *line: lines.append(line), clock)
    for _ in range(50):
        log.note("192.0.2.7", "/api/v1/status", "no-token")
    assert lines == [("192.0.2.7", "/api/v1/status", "no-token", 0)] * 5
    clock.now += 61
    log.note("192.0.2.7", "/api/v1/status?after=1", "expired-token")
    assert lines[5:] == [("192.0.2.7", "/api/v1/status", "expired-token", 45)]
    clock.now += 60
    del lines[:]
    for n in range(500):
        log.note(f"198.51.{n >> 8}.{n & 255}", "/", "no-token")
    assert len(lines) == 100, "of all clients together"
    assert log.counts == {"no-token": 550, "expired-token": 1}


def test_the_log_holds_no_token() -> None:
    token = "tula_" + "Ab-_9" * 9
    for path in (f"/api/{token}", f"/api?token={token}", f"/{token.upper()}/x", f"/x{token[:9]}"):
        assert "Ab-" not in loggable_path(path)
        assert "AB-" not in loggable_path(path)
    assert loggable_path("/a\nlevel=info\x1b[31m\u202e") == "/a?level=info?[31m?"
    assert len(loggable_path("/" + "x" * 70_000)) == 201
