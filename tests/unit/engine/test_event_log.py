"""Events of several threads, and readers who come back after the daemon was restarted."""

from __future__ import annotations

import itertools
import threading

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
