"""The control loop: gathers triggers, and has the writer run a cycle for them in its thread.

Everything here is called in the event loop. The writer's work runs in one thread of its own, one
piece after the other; what came of it is read from the snapshot that it publishes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from tula.config.load import LoadedConfig
from tula.daemon.checks import Checks
from tula.daemon.outcomes import describe_outcome
from tula.daemon.ownership import bound, source_of
from tula.daemon.problems import place_problems, read_configuration
from tula.daemon.reconciler import CycleResult
from tula.daemon.snapshot import Connections, Snapshot
from tula.daemon.supervisor import Supervisor
from tula.daemon.triggers import Trigger, TriggerQueue, wait_after
from tula.daemon.watch import FileWatch
from tula.daemon.writer import Offer, Writer, loss_problems
from tula.engine.control import ApplyOutcome, BusyError, LossError, Match, Order
from tula.engine.host_settings import settings_changed
from tula.engine.overrides import OverrideChange
from tula.kernel.clock import boot_time
from tula.kernel.events import Events, EventSource
from tula.kernel.sysctls import Sysctls
from tula.model.errors import KernelError
from tula.model.health import BackendName, BackendStatus, Override
from tula.model.listening import Source
from tula.model.problem import PlacedProblem, ProblemsError

_SETTINGS = 0.5
"""Seconds between looks at the few sysctls that were set: no event tells of ``accept_local``."""

_WAITED = "a configuration waited for confirmation; this one is accepted in its place"
_T = TypeVar("_T")


class ControlLoop:
    """Schedules the writer. ``run`` starts it; the other methods are requests meanwhile."""

    def __init__(
        self,
        writer: Writer,
        checks: Checks,
        events: EventSource,
        watch: FileWatch,
        sysctls: Sysctls,
        supervisor: Supervisor,
        *,
        follow_file: bool = False,
        force: bool = False,
    ) -> None:
        """``follow_file``: a changed file is an order. ``force`` allows the file to take this
        machine's SSH port."""
        self._follow_file = follow_file
        self._force = force
        self._writer = writer
        self._checks = checks
        self._events = events
        self._watch = watch
        self._sysctls = sysctls
        self._supervisor = supervisor
        self._queue = TriggerQueue()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._turn = asyncio.Lock()
        self._busy_since: float | None = None
        self._wanted: Order | None = None
        self._file_wanted = asyncio.Event()
        self._offer: Offer | None = None
        self._tries = {Trigger.CONFIGURATION: 0, Trigger.KERNEL: 0}
        self._heard = Events()
        self._timer: asyncio.TimerHandle | None = None
        self._retries: dict[Trigger, asyncio.TimerHandle] = {}
        self.followers: list[Callable[[Snapshot], None]] = []
        """What is told of the snapshot after each piece of the writer's work."""
        self.started = asyncio.Event()
        """Set once the first cycle is done, however it ended."""

    @property
    def snapshot(self) -> Snapshot:
        """What the writer published last."""
        return self._writer.snapshot

    def busy_seconds(self) -> float:
        """For how long the writer has been at its present piece of work; 0 when it has none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def trigger(self, trigger: Trigger) -> None:
        """Asks for a cycle."""
        self._queue.note(trigger, time.monotonic())
        self._wake.set()

    def take_file(self, by: str, how: str, *, yes: bool = False) -> None:
        """Has the file's configuration taken, once the file has been read."""
        self._wanted = Order(by, how, self._force, yes, from_file=True, file=str(self._watch.path))
        self._file_wanted.set()

    async def run(self) -> None:
        """Runs cycles until it is cancelled."""
        loop = asyncio.get_running_loop()
        for fileno in self._events.filenos():
            loop.add_reader(fileno, self._hear)
        try:
            await self.in_writer(self._writer.start)
            await self.look_at_file()
            running = self.snapshot.configuration
            if running is None or (self._follow_file and source_of(running) is Source.FILE):
                self._offer = await asyncio.to_thread(
                    self._make_offer, Order("", "at start", self._force, yes=True)
                )
            self.trigger(Trigger.START)
            async with asyncio.TaskGroup() as tasks:
                for name, task in (
                    ("file-watch", self._watch_file),
                    ("file-reader", self._read_when_wanted),
                    ("settings", self._look_at_settings),
                ):
                    tasks.create_task(self._supervisor.keep(name, task), name=name)
                while True:
                    await self._until_due()
                    await self._cycle()
        finally:
            for fileno in self._events.filenos():
                loop.remove_reader(fileno)
            for timer in (self._timer, *self._retries.values()):
                if timer is not None:
                    timer.cancel()

    def close(self) -> None:
        """Waits for the end of the writer's present work; after that it has ended."""
        self._thread.shutdown(wait=True)

    async def apply(self, source: bytes | None, order: Order) -> ApplyOutcome:
        """What ``tula apply`` and ``tula reload`` ask for; see ``Control.apply``."""
        if not self.started.is_set():
            raise BusyError("the daemon is starting; try again")
        order = replace(order, from_file=source is None)
        text = source
        if text is None:
            found = await self.look_at_file()
            if isinstance(found, str):
                return ApplyOutcome(problems=(PlacedProblem(found),))
            text = found
        sent = source is not None and order.how.startswith("apply")
        offer = await asyncio.to_thread(read_configuration, text, self.snapshot.configuration, sent)
        if not isinstance(offer, LoadedConfig):
            await self._refuse(offer, order, source)
            return ApplyOutcome(problems=offer)
        order = await asyncio.to_thread(
            bound, order, offer, self.snapshot.configuration, self._watch
        )
        findings, before = self._checks.findings(), self.snapshot.configuration
        waited = self.snapshot.tentative is not None and order.confirm is None
        try:
            change, result = await self.in_writer(
                lambda: self._writer.apply(offer, findings, order)
            )
        except ProblemsError as error:
            problems = place_problems(error, offer.positions)
            await self._refuse(problems, order, source)
            return ApplyOutcome(problems=problems)
        except LossError as error:
            if source is None:
                await self._refuse(loss_problems(error), order, source)
            raise
        self._settle(result)

        config = None if before is None else before.config
        outcome = await asyncio.to_thread(describe_outcome, config, offer, change)
        if waited:
            outcome = replace(outcome, warnings=(PlacedProblem(_WAITED), *outcome.warnings))
        return outcome

    async def _refuse(
        self, problems: tuple[PlacedProblem, ...], order: Order, source: bytes | None
    ) -> None:
        file = str(self._watch.path) if source is None else "the given configuration"
        await self.in_writer(
            lambda: self._writer.refuse(problems, file, order.by, keep=source is None)
        )

    async def check(self, offer: LoadedConfig, order: Order) -> None:
        """Raises what the writer would refuse to carry out the order for."""
        running = self.snapshot.configuration
        order = await asyncio.to_thread(bound, order, offer, running, self._watch)
        findings = self._checks.findings()
        await self.in_writer(lambda: self._writer.check(offer, findings, order))

    async def preview(
        self, backend: BackendName, change: OverrideChange, *, yes: bool
    ) -> tuple[Override, BackendStatus | None]:
        """See ``Writer.preview``."""
        findings = self._checks.findings()
        return await self.in_writer(
            lambda: self._writer.preview(backend, change, findings, yes=yes)
        )

    async def confirm(self, by: str, match: Match = None, *, dry: bool = False) -> str:
        """Accepts what waits for confirmation; see ``Control.confirm``."""
        return await self.in_writer(lambda: self._writer.confirm(by, match, dry=dry))

    async def go_back(self, by: str, match: Match = None, why: str = "rolled back") -> bool:
        """Gives up what waits for confirmation; whether anything did."""
        if self.snapshot.tentative is None:
            return False
        findings = self._checks.findings()
        result = await self.in_writer(lambda: self._writer.go_back(findings, why, by, match))
        if result is None:
            return False
        self._settle(result)
        if result.error:
            raise KernelError(result.error)
        return True

    async def override(
        self, backend: BackendName, change: OverrideChange, *, by: str = "", yes: bool = True
    ) -> None:
        """Changes the operator's override of a backend; returns when the kernel has it.

        Raises StateError and LossError, and then nothing has changed, and KernelError: then it is
        tried again.
        """
        findings = self._checks.findings()
        result = await self.in_writer(
            lambda: self._writer.override(backend, change, findings, by=by, yes=yes)
        )
        self._settle(result)
        if result.error:
            raise KernelError(result.error)

    async def count(self, connections: Connections | None) -> None:
        """Has the writer act on a count of connections."""
        findings = self._checks.findings()
        result = await self.in_writer(lambda: self._writer.count(connections, findings))
        if result is not None:
            self._settle(result)

    async def ask_writer(self, work: Callable[[Writer], _T]) -> _T:
        """A piece of work of the writer's that is no cycle."""
        return await self.in_writer(lambda: work(self._writer))

    async def share_flows(self) -> None:
        """See ``Control.share_flows``."""
        await self.in_writer(self._writer.share_flows)

    async def in_writer(self, work: Callable[[], _T]) -> _T:
        """Runs a piece of the writer's work when those before it have ended, and follows it."""
        async with self._turn:
            self._busy_since = time.monotonic()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
            finally:
                self._busy_since = None
                self._follow()

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            due = self._queue.due()
            wait = None if due is None else due - time.monotonic()
            if wait is not None and wait <= 0:
                return
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                return

    async def _cycle(self) -> None:
        triggers = self._queue.take()
        offer, self._offer = self._offer, None
        compare = any(trigger.compares for trigger in triggers)
        findings, decided = self._checks.findings(), self._checks.take_decided()
        result = await self.in_writer(
            lambda: self._writer.cycle(findings, compare=compare, offer=offer, decided=decided)
        )
        if result.error and self._offer is None:
            self._offer = offer
        # A comparison finds no thousand verdicts one by one: those that waited for it go on.
        self._settle(result, rest=not compare)
        self.started.set()

    async def _read_when_wanted(self) -> None:
        """Reads the file beside the writer: a large one takes seconds to parse, and health checks
        need the writer meanwhile."""
        while True:
            await self._file_wanted.wait()
            self._file_wanted.clear()
            order = self._wanted or Order(force=self._force)
            await self.look_at_file()
            self._offer = await asyncio.to_thread(self._make_offer, order)
            self.trigger(Trigger.CONFIGURATION)

    def _make_offer(self, order: Order) -> Offer:
        text, running = self._watch.read(), self.snapshot.configuration
        if isinstance(text, str):
            return Offer((PlacedProblem(text),), str(self._watch.path), order)
        return Offer(read_configuration(text, running), str(self._watch.path), order)

    async def look_at_file(self) -> bytes | str:
        """What the file holds, or why that cannot be had; tells how it stands to what runs."""
        found, file = await asyncio.to_thread(self._watch.read), str(self._watch.path)
        if isinstance(found, str):
            await self.in_writer(lambda: self._writer.found_file(None, file, found))
        else:
            await self.in_writer(lambda: self._writer.found_file(found, file))
        return found

    def _settle(self, result: CycleResult, *, rest: bool = True) -> None:
        """Plans the next try of what failed, all of it or a part.

        ``rest``: the next cycle for health comes only after a while.
        """
        now = time.monotonic()
        if result.error:
            self._queue.failed(now)
            self._wake.set()
        else:
            self._queue.succeeded(now, result.seconds if rest else 0.0)
        self._retry(Trigger.KERNEL, result.warned)
        self._retry(Trigger.CONFIGURATION, bool(self.snapshot.deferred))

    def _again(self, trigger: Trigger) -> None:
        if trigger is Trigger.CONFIGURATION:
            self._file_wanted.set()
        else:
            self.trigger(trigger)

    def _retry(self, trigger: Trigger, wanted: bool) -> None:
        """Asks for a trigger after a wait that doubles each time; nothing else waits for it."""
        if not wanted:
            self._tries[trigger] = 0
        elif trigger not in self._retries:

            def again() -> None:
                del self._retries[trigger]
                self._again(trigger)

            wait = wait_after(self._tries[trigger])
            self._tries[trigger] += 1
            self._retries[trigger] = asyncio.get_running_loop().call_later(wait, again)

    def _follow(self) -> None:
        """What the loop does after each piece of the writer's work."""
        self._checks.follow(self.snapshot)
        for follow in self.followers:
            follow(self.snapshot)
        self._set_timer()
        self._judge()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tentative = self.snapshot.tentative
        times = [self.snapshot.statuses.until, None if tentative is None else tentative.until]
        until = min((each for each in times if each is not None), default=None)
        if until is not None:
            loop = asyncio.get_running_loop()
            # asyncio's clock stands still while the machine is suspended: after that, the look for
            # drift comes first.
            wait = max(0.01, until - boot_time())
            self._timer = loop.call_later(wait, self.trigger, Trigger.TIME)

    def _hear(self) -> None:
        try:
            heard = self._events.drain()
        except KernelError:
            heard = Events(lost=True)
        before = self._heard
        self._heard = Events(
            before.network or heard.network,
            before.generations + heard.generations,
            before.lost or heard.lost,
        )
        if not self._turn.locked():
            self._judge()

    def _judge(self) -> None:
        """Has the kernel compared if somebody else has changed something."""
        heard, self._heard = self._heard, Events()
        foreign = set(heard.generations) - self.snapshot.known_revisions
        if heard.network or heard.lost or foreign:
            self.trigger(Trigger.KERNEL)

    async def _watch_file(self) -> None:
        async for _ in self._watch.changes():
            if self._follow_file and source_of(self.snapshot.configuration) is Source.FILE:
                self.take_file("", "the file changed", yes=True)
            else:
                await self.look_at_file()

    async def _look_at_settings(self) -> None:
        while True:
            await asyncio.sleep(_SETTINGS)
            planned = self.snapshot.checks
            if planned is None or not planned.settings:
                continue
            changed = await asyncio.to_thread(settings_changed, planned.settings, self._sysctls)
            if changed and not self._turn.locked() and self.snapshot.checks is planned:
                self.trigger(Trigger.KERNEL)
