"""A background task that fails is told of and goes on; nothing ends in silence."""

from __future__ import annotations

import asyncio

import pytest

from tula.daemon.supervisor import Supervisor
from tula.daemon.systemd import WATCHDOG, WRITER_LIMIT, keep_watchdog, watchdog_interval
from tula.daemon.triggers import FIRST_WAIT
from tula.engine.event_log import EventLog
from tula.model.event import EventKind


def test_a_task_that_fails_is_started_again_and_waits_longer_each_time() -> None:
    events, waits = EventLog(), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    supervisor = Supervisor(events, sleep)
    runs = 0

    async def task() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ZeroDivisionError("as if by a bug")
        if runs == 4:
            raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await supervisor.keep("drift-detection", task)

    asyncio.run(main())
    assert runs == 4
    assert waits == [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4]
    assert supervisor.restarts == {"drift-detection": 3}, "one that returns has failed, too"
    told = [event for event in events.events if event.kind is EventKind.TASK_FAILED]
    assert [event.subject for event in told] == ["drift-detection"] * 3
    assert "as if by a bug" in told[0].evidence


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
    ids=str,
)
def test_how_often_systemd_wants_to_hear(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_interval(environment) == seconds


def test_a_writer_that_hangs_gives_no_sign_of_life_and_one_that_works_does() -> None:
    busy = iter([0.0, WRITER_LIMIT - 1, WRITER_LIMIT + 1, WRITER_LIMIT + 2, 0.0])
    told: list[str] = []
    beats: list[int] = []

    def busy_seconds() -> float:
        beats.append(len(told))
        return next(busy)

    async def main() -> None:
        # The end of the busy times is a StopIteration, which a coroutine turns into this.
        with pytest.raises(RuntimeError):
            await keep_watchdog(0.0, busy_seconds, told.append)

    asyncio.run(main())
    assert told == [WATCHDOG] * 3
    assert beats == [0, 1, 2, 2, 2, 3], "none while the writer hangs"
