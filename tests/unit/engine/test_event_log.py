"""Events of several threads, and readers who come back after the daemon was restarted."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tula.engine.event_file import KEPT, EventFile, read_events
from tula.engine.event_log import EventLog, state_events
from tula.lab.wait import wait_until
from tula.model.event import EventKind
from tula.model.health import BackendStatus, State
from tula.plan.backend_status import DEADLINE_PASSED, BackendStatuses

DOWN, STOPPED = EventKind.BACKEND_DOWN, EventKind.DAEMON_STOPPED


def test_events_of_several_threads_are_in_order() -> None:
    times = itertools.count()
    waiting = threading.Barrier(5)

    def clock() -> float:
        # Where a thread is likely to lose the processor between number and list.
        found = float(next(times))
        for _ in range(200):
            pass
        return found

    log = EventLog(clock)
    seen: list[list[int]] = []

    def add() -> None:
        waiting.wait()
        for _ in range(200):
            log.add(DOWN)

    def read() -> None:
        waiting.wait()
        last = 0
        found: list[int] = []
        while last < 800:
            page = log.page(last, KEPT, log.epoch)
            found += [event.number for event in page.events]
            last = found[-1] if found else 0
        seen.append(found)

    threads = [threading.Thread(target=add) for _ in range(4)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [event.number for event in log.events]
    assert numbers == list(range(1, 801))
    stamps = [event.time for event in log.events]
    assert stamps == sorted(stamps)
    assert seen == [numbers], "a follower gets each once, and in order"


def test_a_follower_misses_nothing_across_a_restart() -> None:
    before, after = EventLog(epoch="before"), EventLog(epoch="after")
    for _ in range(3):
        before.add(DOWN)
    for _ in range(5):
        after.add(DOWN)
    assert before.epoch != EventLog().epoch
    last = before.page(None, 10).events[-1].number
    page = after.page(last, 10, "before")
    assert page.epoch == "after"
    assert [event.number for event in page.events] == [1, 2, 3, 4, 5]
    assert after.page(5, 10, "after").events == ()
    assert [event.number for event in after.page(3, 10, "after").events] == [4, 5]


def test_the_oldest_events_are_forgotten() -> None:
    log = EventLog()
    for _ in range(KEPT + 2):
        log.add(DOWN)
    assert [log.events[0].number, log.events[-1].number] == [3, KEPT + 2]


def test_what_is_held_is_shown_at_the_end_and_others_are_not_kept_waiting() -> None:
    log = EventLog()
    with log.held():
        log.add(DOWN, "web/b0")
        with log.held():
            log.add(DOWN, "web/b1")
        assert log.events == []
        other = threading.Thread(target=log.add, args=(DOWN, "dns/b0"))
        other.start()
        other.join()
        assert [event.subject for event in log.events] == ["dns/b0"]
    log.add(DOWN, "web/b2")
    shown = [event.subject for event in log.events]
    assert shown == ["dns/b0", "web/b0", "web/b1", "web/b2"]
    assert [event.number for event in log.events] == [1, 2, 3, 4]


def test_what_is_held_is_shown_after_an_error_too() -> None:
    log = EventLog()
    with suppress(ZeroDivisionError), log.held():
        log.add(DOWN)
        raise ZeroDivisionError
    assert len(log.events) == 1


def subjects(directory: Path) -> list[str]:
    return [event.subject for event in read_events(directory).events]


def wait_for(condition: Callable[[], bool]) -> None:
    wait_until(condition, 60, "the events' thread")


def test_a_log_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    before, after = EventLog(), EventLog()
    with before.stored(EventFile(tmp_path)):
        before.add(DOWN, "web/b0", "was up, is down", "tcp: \u201cno\u201d\udc80\n")
        before.add(STOPPED)
    assert stat.S_IMODE((tmp_path / "events.jsonl").stat().st_mode) == 0o600
    with after.stored(EventFile(tmp_path)):
        assert after.epoch == before.epoch
        assert after.events == before.events
        after.add(DOWN, "web/b1")
        page = after.page(2, 10, before.epoch)
    assert [(event.number, event.subject) for event in page.events] == [(3, "web/b1")]
    assert subjects(tmp_path) == ["web/b0", "", "web/b1"]


@pytest.mark.parametrize("torn", range(1, 60))
def test_a_torn_line_loses_nothing_else(tmp_path: Path, torn: int) -> None:
    """And after a kill no number is given again that somebody may have seen."""
    before, after = EventLog(), EventLog()
    with before.stored(EventFile(tmp_path)):
        for number in range(3):
            before.add(DOWN, f"web/b{number}")
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-torn])
    with after.stored(EventFile(tmp_path)):
        assert after.epoch == before.epoch
        after.add(DOWN, "web/b3")
        page = after.page(3, 10, before.epoch)
    assert [event.subject for event in page.events] == ["web/b3"]
    kept = ["web/b0", "web/b1", *(["web/b2"] if torn == 1 else [])]
    assert subjects(tmp_path) == [*kept, "web/b3"]


def test_a_torn_first_line_loses_nothing_that_comes(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"epo')
    log = EventLog()
    with log.stored(EventFile(tmp_path)):
        log.add(DOWN, "web/b0")
    assert read_events(tmp_path).epoch == log.epoch
    assert subjects(tmp_path) == ["web/b0"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b'{"number": 9}',
        b'{"number": 9, "time": 1, "kind": "of-a-later-version"}',
        b'{"number": "many", "time": 1, "kind": "backend-down"}',
        b'{"number": 9, "time": 1, "kind": "backend-down", "subject": 5}',
        b"[" * 100_000,
        b"",
    ],
)
def test_a_line_that_nobody_understands_is_left_out(tmp_path: Path, line: bytes) -> None:
    event = b'{"number": %d, "time": 1.5, "kind": "backend-down", "of a later version": {}}\n'
    head = b'{"epoch": "e"}\n'
    (tmp_path / "events.jsonl").write_bytes(head + event % 1 + line + b"\n" + event % 2)
    assert [event.number for event in read_events(tmp_path).events] == [1, 2]


def test_the_files_are_bounded(tmp_path: Path) -> None:
    log = EventLog()
    with log.stored(EventFile(tmp_path, full=4000)):
        for number in range(200):
            log.add(DOWN, f"web/b{number}")
            wait_for(lambda: subjects(tmp_path)[-1:] == [f"web/b{number}"])  # noqa: B023
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"events.jsonl", "events.old.jsonl"}
    assert max(sizes.values()) < 4400
    found = subjects(tmp_path)
    assert found == [f"web/b{number}" for number in range(200 - len(found), 200)]
    assert len(found) > 20, "the last file and the one before it"
    again = EventLog()
    with again.stored(EventFile(tmp_path)):
        assert (again.epoch, again.events[-1].subject) == (log.epoch, "web/b199")


def test_a_full_disk_delays_nobody_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk takes in part is taken back, and written as a whole when there is room."""
    told: list[str] = []
    monkeypatch.setattr("tula.engine.event_file._RETRY", 0.01)
    room, real = [60], os.write

    def write(file: int, text: bytes) -> int:
        if Path(f"/proc/self/fd/{file}").readlink().name != "events.jsonl":
            return real(file, text)
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(file, text[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", write)
    log = EventLog()
    with log.stored(EventFile(tmp_path, told.append)):
        log.add(DOWN, "web/b0")
        wait_for(lambda: bool(told))
        assert (tmp_path / "events.jsonl").read_bytes() == b""
        log.add(DOWN, "web/b1")
        assert len(log.events) == 2
        room[0] = 1 << 20
        wait_for(lambda: subjects(tmp_path) == ["web/b0", "web/b1"])
    assert told == [f"{tmp_path}/events.jsonl: No space left on device"]


def test_what_stands_in_the_files_place_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    log = EventLog()
    with log.stored(EventFile(tmp_path, told.append)):
        log.add(DOWN)
    assert told[0] == f"{tmp_path}/events.jsonl: events.jsonl is a symbolic link; remove it"
    assert not (tmp_path / "elsewhere").exists()


_UP = BackendStatus(State.UP, 100, True)
_DOWN = BackendStatus(State.DOWN, 0, False, "refused")
_UNKNOWN = BackendStatus(State.UNKNOWN, 100, True)
_DRAINING = BackendStatus(State.DRAINING, 0, True, "drained by the operator")
_DISABLED = BackendStatus(State.DISABLED, 0, False, "disabled by the operator")
_PASSED = BackendStatus(State.DISABLED, 0, False, DEADLINE_PASSED)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (_UNKNOWN, _UP, "backend-up"),
        (_UNKNOWN, _DOWN, "backend-down"),
        (_DOWN, _UNKNOWN, None),
        (_UP, _DRAINING, "drained"),
        (_DRAINING, _UP, "undrained"),
        (_DRAINING, _UNKNOWN, "undrained"),
        (_DRAINING, _PASSED, "drain-ended"),
        (_DOWN, _PASSED, "drain-ended"),
        (_DRAINING, _DISABLED, "disabled"),
        (_DOWN, _DRAINING, "backend-up"),
        (_UP, _DISABLED, "disabled"),
        (_DISABLED, _UP, "enabled"),
        (_DISABLED, _UNKNOWN, "enabled"),
        (_DISABLED, _DRAINING, "enabled"),
        (_DISABLED, _DOWN, "backend-down"),
        (_PASSED, _UP, "undrained"),
        (_PASSED, _DRAINING, "drained"),
    ],
    ids=str,
)
def test_an_event_says_what_was_done(old: BackendStatus, new: BackendStatus, kind: str) -> None:
    name = ("web", "b0")
    found = state_events(BackendStatuses({name: old}), BackendStatuses({name: new}))
    told = [(str(event[0]), event[2]) for event in found]
    assert told == ([(kind, f"was {old.state}, is {new.state}")] if kind else [])
