"""Messages to real servers and programs, good and bad ones: all end, and say how."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.certificates import make_certificate
from support.receivers import (
    dribbling,
    endless,
    mute,
    secured,
    serving,
    smtp,
    web,
)
from tula.daemon.notify import deliver as delivering
from tula.daemon.notify.deliver import deliver
from tula.daemon.notify.group import Group
from tula.daemon.notify.message import Message, make_message, make_test
from tula.daemon.notify.own_loop import OwnLoop
from tula.daemon.notify.pipeline import Outcome
from tula.lab import wait_until
from tula.model.event import Event, EventKind
from tula.model.notifying import BodyFormat, Email, Receiver, StartTls

NOW = 1_800_000_000.0


def message() -> Message:
    group = Group(0.0)
    for number in (1, 2):
        group.add(Event(number, NOW, EventKind.BACKEND_DOWN, f"web/b{number}", "was up", "refused"))
    return make_message(group, epoch="e", balancer="lb1", receiver="r", now=NOW + 2)


def told(receiver: Receiver, what: Message | None = None, within: float = 60.0) -> Outcome:
    """One try; ``within`` so many seconds where nobody answers, and generous where one does."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=OwnLoop) as runner:
        for name in ("WEBHOOK", "EXEC", "EMAIL"):
            patch.setattr(delivering, name, within)
        return runner.run(deliver(receiver, what or message()))


def test_a_webhook_gets_json(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("abc\n")
    with serving(web) as server:
        receiver = Receiver(server.url, headers=(("X-Team", "ops"),), token_file=str(token))
        assert told(receiver) == Outcome()
        (body,) = server.got
        (head,) = server.heads
    assert (body["version"], body["balancer"], body["status"]) == (1, "lb1", "firing")
    assert body["subject"] == "2 backends down (web: 2)"
    assert [change["backend"] for change in body["changes"]] == ["b1", "b2"]
    assert "Authorization: Bearer abc" in head
    assert "X-Team: ops" in head


def test_alertmanagers_receivers_understand_it() -> None:
    with serving(web) as server:
        assert told(Receiver(server.url, format=BodyFormat.ALERTMANAGER)) == Outcome()
        (body,) = server.got
    assert (body["version"], body["status"], body["truncatedAlerts"]) == ("4", "firing", 0)
    assert body["commonLabels"] == {
        "alertname": "TulaBackendDown",
        "service": "web",
        "severity": "warning",
    }
    first = body["alerts"][0]
    assert first["labels"]["backend"] == "b1"
    assert (first["startsAt"], first["endsAt"]) == ("2027-01-15T08:00:00Z", "0001-01-01T00:00:00Z")
    assert {alert["fingerprint"] for alert in body["alerts"]}.__len__() == 2


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("500 Oops", Outcome("answered 500")),
        ("404 Not Found", Outcome("answered 404", refused=True)),
        ("429 Slower\r\nRetry-After: 7", Outcome("answered 429", wait=7.0)),
        ("302 Found\r\nLocation: http://127.0.0.1/", Outcome("answered 302", refused=True)),
    ],
)
def test_a_webhook_that_refuses(answer: str, outcome: Outcome) -> None:
    with serving(web) as server:
        server.answers = [answer]
        assert told(Receiver(server.url)) == outcome
        assert not server.got


def test_webhooks_that_never_end() -> None:
    with serving(mute) as server:
        assert told(Receiver(server.url), within=0.5).error in (
            "did not end within 0.5 s",
            "no answer within 0.5 s",
        )
    with serving(dribbling) as server:
        assert told(Receiver(server.url), within=0.5).error, "a tarpit"
    with serving(endless) as server:
        assert told(Receiver(server.url)) == Outcome("answered 500"), "its answer is not read"
    dead = f"http://127.0.0.1:{server.port}/s3cret"
    assert told(Receiver(dead)) == Outcome("nobody listens there")


def test_dns_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    hanging = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_a, **_k: hanging.wait(60) and [])
    for _ in range(10):
        assert told(Receiver("http://hooks.example.org/"), within=0.1).error
    hanging.set()


def test_certificates_are_verified(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "127.0.0.1")
    with serving(secured(web, made.context())) as server:
        url = server.url.replace("http:", "https:")
        refused = told(Receiver(url))
        assert refused.error.startswith("its certificate is not trusted")
        assert told(Receiver(url, verify=False)) == Outcome()


def program(folder: Path, text: str) -> tuple[str, ...]:
    file = folder / "on-change"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return (str(file), "--from-tula")


def test_a_program_gets_it_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    out = tmp_path / "out"
    out.touch()
    out.chmod(0o666)
    command = program(tmp_path, f'{{ echo "$1 $TULA_STATUS $TULA_SUBJECT"; cat; }} > {out}')
    assert told(Receiver(exec=command)) == Outcome()
    first, body = out.read_text().splitlines()
    assert first == "--from-tula firing 2 backends down (web: 2)"
    assert body.startswith('{"version": 1')


def test_programs_that_fail(tmp_path: Path) -> None:
    failing = told(Receiver(exec=program(tmp_path, "echo no; exit 3")))
    assert failing == Outcome("exit status 3: no")
    assert told(Receiver(exec=("/nowhere/program",))).error.startswith(("exit status", "cannot"))
    assert told(Receiver(exec=program(tmp_path, "yes"))) == Outcome("wrote too much output")

    started = tmp_path / "pid"
    endless = program(tmp_path, f"sleep 600 & echo $! > {started}; exec sleep 600")

    def began() -> bool:
        assert told(Receiver(exec=endless), within=1.0).error == "did not end within 1 s"
        return started.exists() and bool(started.read_text())

    wait_until(began, 60.0, "it was started in its time")
    pid = int(started.read_text())

    def gone() -> bool:
        try:
            return "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return True

    wait_until(gone, 30.0, "its group is killed")


def test_a_mail() -> None:
    with serving(smtp) as server:
        to = ("ops@example.org", "noc@example.org")
        email = Email(to, "tula@lb1.example.org", f"127.0.0.1:{server.port}")
        assert told(Receiver(email=email)) == Outcome()
        (mail,), (rcpt,) = server.got, server.heads
    assert "Subject: [tula lb1] WARNING: 2 backends down (web: 2)" in mail
    assert "backend web/b1 down since 2027-01-15T08:00:00Z: refused" in mail
    assert "Auto-Submitted: auto-generated" in mail
    assert "Message-ID: <e-2-2.lb1@lb1.example.org>" in mail
    assert [address in rcpt for address in to] == [True, True]


def test_mail_servers_that_refuse_or_never_end() -> None:
    def email(port: int, **keys: object) -> Receiver:
        made = Email(("ops@example.org",), "tula@example.org", f"127.0.0.1:{port}", **keys)
        return Receiver(email=made)

    with serving(smtp) as server:
        server.answers = ["550 no such user", "451 later"]
        refused = told(email(server.port))
        assert (refused.error, refused.refused) == ("ops@example.org: 550 no such user", True)
        assert told(email(server.port)).error.startswith("ops@example.org: 451 later")
        assert told(email(server.port, starttls=StartTls.REQUIRED)).error, "it does not offer it"
        assert server.got == []
    for tarpit in (mute, dribbling):
        with serving(tarpit) as server:
            assert told(email(server.port), within=0.5).error
    assert told(email(server.port)).error == "nobody listens there"


def test_a_test_says_so() -> None:
    for form in BodyFormat:
        with serving(web) as server:
            made = make_test("lb1", "webhook x", NOW)
            assert told(Receiver(server.url, format=form), made) == Outcome()
            assert "test" in str(server.got[0]).lower()
