"""Follows the event log and tells receivers, in a thread of its own: nothing waits for it.

What adds an event appends it to a bounded queue, and goes on. The thread has an event loop, in
which each receiver is told one message at a time.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from tula.daemon.notify.dedup import Other
from tula.daemon.notify.deliver import deliver
from tula.daemon.notify.group import Topic, topic_of
from tula.daemon.notify.memory import read_memory, write_memory
from tula.daemon.notify.message import make_message, make_test
from tula.daemon.notify.own_loop import OwnLoop, in_thread
from tula.daemon.notify.pipeline import Pipeline
from tula.daemon.notify.published import Published, publish
from tula.daemon.snapshot import Snapshot
from tula.engine.event_log import EventLog
from tula.engine.notify_facts import ReceiverFacts, TestResult
from tula.engine.peer_view import Notified
from tula.model.config import Config
from tula.model.event import Event, EventKind
from tula.model.notifying import Notifications
from tula.model.severity import BEGINS

T = TypeVar("T")
INBOX = 20_000
"""Events that may wait for the thread; the oldest of more are lost, and counted."""
_TOPICS = 50_000
"""Things that last of which is known since when."""
_SOON = 0.05
"""Seconds in which what comes with an event is waited for."""
_LOOK = 0.5
"""Seconds between two looks at what other balancers have told, while something waits for it."""
_SAVE = 1.0
"""Seconds between two writes at least."""
_SLACK = 3.0
"""Seconds by which two balancers may see the same later than their checks alone explain."""
_IDLE = 60.0
_END = 2.0
"""Seconds that the end of the daemon waits for what was told to be noted."""
_TEST = 40.0


class Notifier:
    """``follow`` begins; the rest is asked of it, by any thread."""

    def __init__(
        self,
        state_dir: Path,
        events: EventLog,
        others: Callable[[], tuple[str, Sequence[Other]]],
        failed: Callable[[str, Exception], object],
    ) -> None:
        """``others`` tells the name of this balancer and what is known of the others; ``failed``
        is told of a failure of the thread, which goes on."""
        self._state_dir = state_dir
        self._events = events
        self._others = others
        self._failed = failed
        self._config: Config | None = None
        self._wanted = Notifications()
        self._thread: threading.Thread | None = None
        self._loop: OwnLoop | None = None
        self._wake = asyncio.Event()
        self._woken = False
        self._ending = False
        self._inbox: deque[Event] = deque(maxlen=INBOX)
        self._last = 0
        self._pipelines: dict[str, Pipeline] = {}
        self._flying: dict[str, asyncio.Task[None]] = {}
        self._since: dict[Topic, float] = {}
        self._tolerances: dict[str, float] = {}
        self._published = Published()
        self._reading: float | None = None
        self._saved: object = None
        self._saving: asyncio.Task[None] | None = None
        self._next_save = 0.0

    # Asked by others

    @property
    def facts(self) -> tuple[ReceiverFacts, ...]:
        """How each receiver stands."""
        return self._published.facts

    def problems(self) -> tuple[str, ...]:
        """The receivers that take nothing, a line each."""
        return self._published.problems

    def notified(self) -> Notified:
        """What other balancers are told of it."""
        now, reading = time.time(), self._reading
        with suppress(IndexError):
            now = min(now, self._inbox[0].time)
        return self._published.notified(now if reading is None else min(now, reading))

    def follow(self, snapshot: Snapshot) -> None:
        """Takes the receivers of what runs now; the first ones start the thread."""
        running = snapshot.configuration
        if running is None or running.config is self._config:
            return
        self._config = running.config
        if self._thread is None:
            if not running.config.notify.receivers:
                return
            # Not joined for ever at the end, so it may not keep the process.
            self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
            self._events.followers.append(self._hear)
            self._last = self._events.last_number
            self._thread.start()
        else:
            self._rouse()

    async def test(self) -> tuple[TestResult, ...]:
        """Sends each receiver a message that says so, at once, and tells what became of it."""
        loop = self._loop
        if loop is None or self._thread is None or not self._wanted.receivers:
            return ()
        asked: Future[tuple[TestResult, ...]] = asyncio.run_coroutine_threadsafe(self._test(), loop)
        return await asyncio.wait_for(asyncio.wrap_future(asked), _TEST)

    def close(self) -> None:
        """Ends the thread; what was told is noted, and what was not is told by the next daemon."""
        if self._thread is None:
            return
        with suppress(ValueError):
            self._events.followers.remove(self._hear)
        self._ending = True
        self._rouse()
        self._thread.join(_END)

    def _hear(self, event: Event) -> None:
        self._inbox.append(event)
        if not self._woken:
            self._rouse()

    def _rouse(self) -> None:
        self._woken = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._wake.set)

    # The thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=OwnLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, OwnLoop)
            self._loop = loop
            while not self._ending:
                try:
                    runner.run(self._live())
                except Exception as error:
                    self._failed("notifications", error)
                    time.sleep(1.0)
            self._loop = None

    async def _live(self) -> None:
        self._reading = time.time()
        if not self._pipelines:
            self._recall()
        try:
            while True:
                self._woken = False
                self._wake.clear()
                self._read()
                self._start(time.monotonic())
                self._publish()
                if self._ending:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._wait(time.monotonic()))
                    if not self._ending:
                        await asyncio.sleep(_SOON)
        finally:
            tasks = list(self._flying.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._saving is not None:
                await asyncio.gather(self._saving, return_exceptions=True)
            await self._save()

    def _recall(self) -> None:
        """Takes up what the last daemon left, from the log."""
        memory, log = read_memory(self._state_dir), self._events
        self._configure()
        for pipeline in self._pipelines.values():
            kept = memory.receivers.get(pipeline.receiver.identity)
            if kept is not None:
                same = memory.epoch == log.epoch
                pipeline.resume(kept, kept.cursor if same else 0)
        self._offer([event for event in log.events if event.number <= self._last])

    def _configure(self) -> None:
        """Receivers that stay keep what they have; a new one hears of what comes from now on."""
        config = self._config
        if config is None or config.notify is self._wanted:
            return
        self._wanted = config.notify
        self._tolerances = {
            service.name: _SLACK
            + max((each.interval + each.timeout for each in service.health), default=0.0)
            for service in config.services
        }
        before = {each.receiver.identity: each for each in self._pipelines.values()}
        found = {}
        for name, receiver in config.notify.named:
            pipeline = before.get(receiver.identity)
            if pipeline is None:
                pipeline = Pipeline(name, receiver, self._last)
            pipeline.rename(name, receiver)
            found[name] = pipeline
        stay = {each.receiver.identity for each in found.values()}
        for key, task in list(self._flying.items()):
            if key not in stay:
                task.cancel()
        self._pipelines = found

    def _read(self) -> None:
        with suppress(IndexError):
            self._reading = self._inbox[0].time
        fresh = {}
        while self._inbox:
            event = self._inbox.popleft()
            if event.number > self._last:
                fresh[event.number] = event
        if fresh:
            wanted = max(fresh) - self._last
            if len(fresh) < wanted:
                # Threads that add events may tell of them in another order than that of numbers.
                fresh |= {e.number: e for e in self._events.events if e.number > self._last}
                wanted = max(fresh) - self._last
            if len(fresh) < wanted:
                for pipeline in self._pipelines.values():
                    pipeline.lose(wanted - len(fresh))
            self._last = max(fresh)
            self._offer([fresh[number] for number in sorted(fresh)])
        self._configure()
        own, others = self._others()
        now = time.monotonic()
        for pipeline in self._pipelines.values():
            pipeline.review(own, others, now, self._tolerance)

    def _offer(self, events: Sequence[Event]) -> None:
        now = time.monotonic()
        for event in events:
            topic = topic_of(event)
            since = self._since.get(topic)
            if event.kind in BEGINS:
                self._since[topic] = event.time
                if len(self._since) > _TOPICS:
                    del self._since[next(iter(self._since))]
            elif since is not None and event.kind is not EventKind.BACKEND_DIAGNOSED:
                del self._since[topic]
            for pipeline in self._pipelines.values():
                pipeline.offer(event, now, since)

    def _tolerance(self, service: str) -> float:
        return self._tolerances.get(service, _SLACK)

    def _start(self, now: float) -> None:
        for pipeline in self._pipelines.values():
            key, due = pipeline.receiver.identity, pipeline.due()
            if due is not None and due <= now and key not in self._flying and not self._ending:
                task = asyncio.create_task(self._send(pipeline), name=f"notify {pipeline.name}")
                self._flying[key] = task
                task.add_done_callback(partial(self._landed, key))

    def _landed(self, key: str, _: asyncio.Task[None]) -> None:
        del self._flying[key]
        self._wake.set()

    async def _send(self, pipeline: Pipeline) -> None:
        wall, group = time.time(), pipeline.take()
        try:
            message = make_message(
                group,
                epoch=self._events.epoch,
                balancer=self._name(),
                receiver=pipeline.name,
                now=wall,
                missed=pipeline.missed,
            )
            outcome = await deliver(pipeline.receiver, message)
        except BaseException:
            pipeline.give_back()
            raise
        kind = pipeline.ended(outcome, time.monotonic(), time.time())
        if outcome.error:
            log = structlog.get_logger("tula")
            log.warning("notify", receiver=pipeline.name, error=outcome.error)
        if kind is not None:
            self._events.add(kind, pipeline.name, evidence=outcome.error)

    async def _test(self) -> tuple[TestResult, ...]:
        async def one(name: str, pipeline: Pipeline) -> TestResult:
            began = time.monotonic()
            message = make_test(self._name(), name, time.time())
            outcome = await deliver(pipeline.receiver, message)
            seconds = time.monotonic() - began
            return TestResult(name, pipeline.receiver.kind, outcome.error, seconds)

        found = [one(name, pipeline) for name, pipeline in self._pipelines.items()]
        return tuple(await asyncio.gather(*found))

    def _name(self) -> str:
        own, _ = self._others()
        return own or socket.gethostname()

    def _wait(self, now: float) -> float:
        """Seconds until something is to be done, if nothing happens."""
        dues = [each.due() for each in self._pipelines.values()]
        wait = min((due - now for due in dues if due is not None), default=_IDLE)
        if any(each.waits for each in self._pipelines.values()):
            wait = min(wait, _LOOK)
        if self._unsaved() and self._saving is None:
            wait = min(wait, max(_SOON, self._next_save - now))
        return max(0.0, wait)

    # What others see of it, and the next daemon

    def _publish(self) -> None:
        self._published = publish(self._pipelines.values(), self._published)
        self._reading = None
        now = time.monotonic()
        if self._unsaved() and self._saving is None and now >= self._next_save:
            self._next_save = now + _SAVE
            self._saving = asyncio.create_task(self._save())
            self._saving.add_done_callback(self._saved_now)

    def _state(self) -> object:
        return tuple(
            (each.receiver.identity, each.position, each.revision, each.missed, each.failing_told)
            for each in self._pipelines.values()
        )

    def _unsaved(self) -> bool:
        return self._state() != self._saved

    def _saved_now(self, _: object) -> None:
        self._saving = None
        self._wake.set()

    async def _save(self) -> None:
        if not self._unsaved():
            return
        state = self._state()
        stored = {each.receiver.identity: each.stored() for each in self._pipelines.values()}
        loop = asyncio.get_running_loop()
        try:
            await in_thread(loop, lambda: write_memory(self._state_dir, self._events.epoch, stored))
        except OSError as error:
            structlog.get_logger("tula").warning("notify-not-saved", error=str(error))
            self._next_save = time.monotonic() + _IDLE
        else:
            self._saved = state
