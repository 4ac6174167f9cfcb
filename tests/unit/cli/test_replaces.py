"""Who has a configuration accepted knows which one it replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from support.fake_control import NOW, FakeControl
from tula.engine.control import LossError, Order, SourceError
from tula.engine.history import Entry, digest_of

Call = Callable[..., Result]
FILE = ["apply", "-f", "DOC/tula.yaml"]
NEWER = "interfaces: [eth1]\nservices: {}\n"


@pytest.fixture
def overtaken(daemon: FakeControl, monkeypatch: pytest.MonkeyPatch) -> FakeControl:
    """Somebody else has another configuration accepted while this user answers a question."""
    daemon.loss = ("this takes away the last backend of web",)
    daemon.accepted = (Entry(7, NOW, digest_of(NEWER.encode()), "ann", "apply", ()),)
    applied = daemon.apply

    async def apply(source: bytes | None, order: Order) -> Any:
        try:
            return await applied(source, order)
        except LossError:
            daemon.text = NEWER
            raise

    monkeypatch.setattr(daemon, "apply", apply)
    monkeypatch.setattr("tula.cli.common.is_terminal", lambda: True)
    return daemon


def test_what_is_sent_names_what_it_replaces(tula: Call, daemon: FakeControl) -> None:
    assert tula(*FILE).exit_code == 0
    ((_, _, order),) = daemon.done
    assert isinstance(order, Order)
    assert order.match == {daemon.digest}


@pytest.mark.parametrize("words", [FILE, ["reload"]], ids=" ".join)
def test_another_was_accepted_meanwhile(
    tula: Call, overtaken: FakeControl, words: list[str]
) -> None:
    found = tula(*words, given="y\n")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.endswith(
        "tula: another configuration runs than when you asked: number 7, apply by ann at "
        "2027-01-15T08:00:00Z; nothing was changed; look at it (tula diff), and ask again\n"
    )
    assert overtaken.done == []


def test_one_that_waits_runs_meanwhile(tula: Call, overtaken: FakeControl) -> None:
    overtaken.accepted = ()
    assert "you asked: one that waits for tula confirm; " in tula(*FILE, given="y\n").stderr


def test_the_same_was_accepted_meanwhile(
    tula: Call, overtaken: FakeControl, tmp_path: Path
) -> None:
    """As by ``tula run --watch``, which saw the file being saved."""
    (tmp_path / "tula.yaml").write_text(NEWER)
    assert tula(*FILE, given="y\n").exit_code == 0
    assert overtaken.done[0][1] == NEWER.encode()


def test_what_is_to_be_replaced_may_be_named(tula: Call, daemon: FakeControl) -> None:
    runs = daemon.digest
    for digest in (runs, runs[:8].upper()):
        assert tula(*FILE, "--replaces", digest).exit_code == 0
    for words in (FILE, ["apply"]):
        found = tula(*words, "--replaces", "0123456789abcdef")
        assert (found.exit_code, found.stdout) == (1, "")
        assert found.stderr == (
            f"tula: --replaces: another configuration runs, {runs[:12]}; tula history tells who "
            "had it accepted, tula diff what it changed\n"
        )
    assert len(daemon.done) == 2
    for wrong in ("", "1234567", "configuration", "0" * 65):
        assert tula(*FILE, "--replaces", wrong).exit_code == 2
    assert tula("apply", "--replaces", runs).exit_code == 0
    order = daemon.done[-1][2]
    assert isinstance(order, Order)
    assert order.match == {runs}


def test_without_a_daemon(tula: Call) -> None:
    found = tula(*FILE, "--replaces", "0123456789abcdef")
    assert found.exit_code == 1
    assert "another configuration runs, e3b0c44298fc; " in found.stderr


def test_who_owns_the_configuration_is_no_question(tula: Call, daemon: FakeControl) -> None:
    """A 409 that ``--yes`` does not help with."""
    daemon.error = SourceError("the file owns it")
    found = tula("reload", "--yes")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == "tula: the file owns it\n"
