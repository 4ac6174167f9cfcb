"""Events of several threads, and readers who come back after the daemon was restarted."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress

from tula.engine.event_log import KEPT, EventLog
from tula.model.event import EventKind

DOWN = EventKind.BACKEND_DOWN


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
