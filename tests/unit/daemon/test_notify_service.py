"""The thread that tells: it follows the log, goes on after a restart, and holds up nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from support.builders import make_config
from support.receivers import Receiver as Server
from support.receivers import mute, serving, web
from tula.daemon.notify.memory import FILE, read_memory
from tula.daemon.notify.service import Notifier
from tula.engine.event_file import EventFile
from tula.engine.event_log import EventLog
from tula.lab import wait_until
from tula.model.event import EventKind
from tula.model.notifying import Notifications, Receiver

DOWN, UP = EventKind.BACKEND_DOWN, EventKind.BACKEND_UP


def snapshot(*receivers: Receiver) -> SimpleNamespace:
    config = replace(make_config(), notify=Notifications(receivers))
    return SimpleNamespace(configuration=SimpleNamespace(config=config))


def to(server: Server, interval: float = 0.0) -> Receiver:
    return Receiver(server.url, group_wait=0.0, group_interval=interval)


@contextmanager
def daemon(folder: Path, *receivers: Receiver) -> Iterator[tuple[EventLog, Notifier]]:
    """One life of a daemon, as far as this matters."""
    log, failures = EventLog(), []
    notifier = Notifier(folder, log, lambda: ("lb1", ()), lambda *why: failures.append(why))
    with log.stored(EventFile(folder)):
        notifier.follow(snapshot(*receivers))
        yield log, notifier
        notifier.close()
    assert failures == []


def told(server: Server) -> list[tuple[str, str]]:
    return [(c["subject"], c["kind"]) for body in server.got for c in body["changes"]]


def test_a_restart_neither_loses_nor_repeats(tmp_path: Path) -> None:
    with serving(web) as server:
        with daemon(tmp_path, to(server)) as (log, notifier):
            log.add(DOWN, "web/b1", evidence="refused")
            wait_until(lambda: told(server) == [("web/b1", "backend-down")], 30)
            wait_until(lambda: notifier.facts[0].sent == 1, 30)
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        with daemon(tmp_path, to(server, 1000.0)) as (log, _):
            log.add(UP, "web/b1")
            wait_until(lambda: len(server.got) == 2, 30)
            log.add(DOWN, "web/b2")  # its message is not due before the end
        with daemon(tmp_path, to(server)) as (log, notifier):
            wait_until(lambda: len(server.got) == 3, 30)
            log.add(DOWN, "web/b3")
            wait_until(lambda: len(server.got) == 4, 30)
        first = server.got[1]["changes"][0]
        assert first["since"] < first["time"], "when it began, the log knows"
        assert [name for name, _ in told(server)] == ["web/b1", "web/b1", "web/b2", "web/b3"]
        assert server.got[3]["events"] == 1


def test_a_crash_repeats_at_most_what_was_not_noted(tmp_path: Path) -> None:
    with serving(web) as server:
        with daemon(tmp_path, to(server)) as (log, notifier):
            log.add(DOWN, "web/b1")
            wait_until(lambda: len(server.got) == 1, 30)
            wait_until(
                lambda: any(kept.sent for kept in read_memory(tmp_path).receivers.values()), 30
            )
            before = (tmp_path / FILE).read_bytes()
            log.add(UP, "web/b1")
            wait_until(lambda: len(server.got) == 2, 30)
            wait_until(lambda: notifier.facts[0].sent == 2, 30)
        (tmp_path / FILE).write_bytes(before)  # as if it had been killed before it noted that
        with daemon(tmp_path, to(server)):
            wait_until(lambda: len(server.got) == 3, 30)
        assert told(server)[1:] == [("web/b1", "backend-up")] * 2, "at least once"


def test_no_event_waits_for_a_receiver(tmp_path: Path) -> None:
    with serving(mute) as server, daemon(tmp_path, to(server)) as (log, notifier):
        log.add(DOWN, "web/b0")
        wait_until(lambda: server.connections, 30)
        began = time.thread_time()
        for number in range(5000):
            log.add(DOWN, f"web/b{number}")
        spent = time.thread_time() - began
        wait_until(lambda: notifier.facts[0].waiting >= 5000, 30)
        facts = notifier.facts[0]
        assert (facts.given_up, facts.sent) == (0, 0)
        assert spent < 30.0  # of CPU: nobody waited
    assert log.last_number >= 5001


def test_settings_that_change(tmp_path: Path) -> None:
    with serving(web) as one, serving(web) as other, daemon(tmp_path) as (log, notifier):
        log.add(DOWN, "web/b1")
        assert notifier.facts == ()
        assert asyncio.run(notifier.test()) == ()
        notifier.follow(snapshot(to(one)))
        log.add(DOWN, "web/b2")
        wait_until(lambda: one.got, 30)
        notifier.follow(snapshot(to(one), to(other)))
        wait_until(lambda: len(notifier.facts) == 2, 30)
        log.add(DOWN, "web/b3")
        wait_until(lambda: other.got, 30)
        assert [name for name, _ in told(other)] == ["web/b3"]
        assert "web/b1" not in str(one.got), "it hears of what comes from then on"
        found = asyncio.run(notifier.test())
        assert [each.error for each in found] == ["", ""]
        notifier.follow(snapshot())
        wait_until(lambda: not notifier.facts, 30)
