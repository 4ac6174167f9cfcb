"""Drives the reconciler: gathers triggers, runs cycles in a thread, and has probed what it says.

Everything here is called in the event loop; what asks the kernel or the disk runs in one thread
of its own, one piece of work at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tula.daemon.checks import Checks
from tula.daemon.pending import Pending, Trigger, wait_after
from tula.daemon.reconciler import CycleResult, Findings, Reconciler
from tula.daemon.watch import FileWatch
from tula.engine.change import Change
from tula.engine.control import ApplyOutcome, BusyError, Cycle, RefusedError
from tula.engine.figures import CycleFigures, CycleOutcome
from tula.kernel.clock import boot_time
from tula.kernel.events import Events, KernelEvents
from tula.model.errors import KernelError, StateError
from tula.model.health import BackendName, Health
from tula.model.problem import PlacedProblem, ProblemsError

DRIFT = 60.0
"""Seconds between looks at the whole kernel when nothing happens."""
_SETTINGS = 0.5
"""Seconds between looks at the few sysctls that were made: no event tells of ``accept_local``."""

_T = TypeVar("_T")


class Driver:
    """The loop around a reconciler. ``run`` starts it; the rest is asked of it meanwhile."""

    def __init__(
        self,
        reconciler: Reconciler,
        checks: Checks,
        events: KernelEvents,
        watch: FileWatch,
        *,
        force: bool = False,
        drift: float = DRIFT,
    ) -> None:
        self._reconciler = reconciler
        self._checks = checks
        self.events = events
        self._watch = watch
        self._force = force
        self._drift = drift
        self._pending = Pending()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kernel")
        self._working = asyncio.Lock()
        self._waiting: list[asyncio.Future[CycleResult]] = []
        self._offer_due = True
        self._offers_failed = 0
        self._adopted = False
        self._own: set[int] = set()
        self._heard = Events()
        self._timer: asyncio.TimerHandle | None = None
        self._seconds = 0.0
        self._reactions = (0, 0.0)
        self._outcomes: dict[CycleOutcome, int] = {}
        self.last: Cycle | None = None
        self.started = asyncio.Event()
        """Set once the first cycle is done, however it ended."""

    def trigger(self, trigger: Trigger) -> None:
        """Asks for a cycle."""
        self._pending.note(trigger, time.monotonic())
        if trigger is Trigger.DOCUMENT:
            self._offer_due = True
        self._wake.set()

    async def settled(self, trigger: Trigger) -> CycleResult:
        """Asks for a cycle, and waits until one that began after this has ended."""
        done: asyncio.Future[CycleResult] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self.trigger(trigger)
        return await done

    async def in_thread(self, work: Callable[[], _T]) -> _T:
        """Work for the kernel or the disk, when what is under way has ended."""
        async with self._working:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def figures(self) -> CycleFigures:
        """The cycles until now."""
        return CycleFigures(dict(self._outcomes), self._seconds, *self._reactions)

    async def run(self) -> None:
        """Runs cycles until it is cancelled."""
        loop = asyncio.get_running_loop()
        for fileno in self.events.filenos():
            loop.add_reader(fileno, self._hear)
        watching = asyncio.create_task(self._watch_file(), name="file")
        drifting = asyncio.create_task(self._look_for_drift(), name="drift")
        settings = asyncio.create_task(self._look_at_settings(), name="settings")
        self.trigger(Trigger.START)
        try:
            while True:
                await self._until_due()
                await self._cycle()
        finally:
            watching.cancel()
            drifting.cancel()
            settings.cancel()
            for fileno in self.events.filenos():
                loop.remove_reader(fileno)
            for waiting in self._waiting:
                waiting.cancel()

    async def offer(self, source: bytes | None, force: bool) -> ApplyOutcome:
        """What ``tula apply`` and ``tula reload`` ask for; see ``Control.apply``."""
        if not self.started.is_set():
            raise BusyError("the daemon is starting; try again")
        text = self._watch.read()
        if isinstance(text, str):
            return ApplyOutcome(problems=(PlacedProblem(text),))
        if source is not None and source != text:
            path = self._watch.path
            raise RefusedError((f"the daemon runs {path}, which says otherwise; change that file",))
        findings = self._checks.findings()

        def work() -> tuple[Change, Exception | None]:
            with self.events.aside():
                return self._try_offer(text, findings, force)

        change, failure = await self.in_thread(work)
        self._after_work()
        if isinstance(failure, ProblemsError):
            refused = self._reconciler.refused
            return ApplyOutcome(problems=refused.problems if refused else ())
        if failure is not None:
            raise failure
        result = await self.settled(Trigger.DOCUMENT)
        if result.error:
            raise KernelError(result.error)
        return self._checks.applied(change)

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            due = self._pending.due()
            wait = None if due is None else due - time.monotonic()
            if wait is not None and wait <= 0:
                return
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                return

    async def _cycle(self) -> None:
        triggers = self._pending.take()
        waiting, self._waiting = self._waiting, []
        offer, self._offer_due = self._offer_due, False
        findings, decided = self._checks.findings(), self._checks.take_decided()
        result = await self.in_thread(lambda: self._work(triggers, offer, findings))
        if result.error:
            self._pending.failed(time.monotonic())
            self._offer_due = self._offer_due or offer
        else:
            self._pending.succeeded(time.monotonic(), result.seconds)
            if offer:
                self._offer_again()
        self._seconds += result.seconds
        self._outcomes[result.outcome] = self._outcomes.get(result.outcome, 0) + 1
        reaction = None
        if decided is not None and result.committed is not None:
            reaction = result.committed - decided
            self._reactions = (self._reactions[0] + 1, self._reactions[1] + reaction)
        self.last = Cycle(time.time(), result.seconds, result.outcome, result.error, reaction)
        self._after_work()
        self.started.set()
        for done in waiting:
            if not done.done():
                done.set_result(result)

    def _work(
        self,
        triggers: Iterable[Trigger],
        offer: bool,
        findings: Mapping[BackendName, Health],
    ) -> CycleResult:
        """In the thread."""
        with self.events.aside():
            adopt = not self._adopted
            if adopt:
                try:
                    self._reconciler.start()
                    findings = self._checks.adopt(self._reconciler.adopted())
                except (KernelError, StateError) as error:
                    return self._reconciler.fail(str(error))
                self._adopted = True
            if offer:
                self._read_file(findings)
            compare = adopt or any(trigger.compares for trigger in triggers)
            result = self._reconciler.cycle(findings, compare=compare)
            self._checks.plan(settle=compare or offer)
            self._note_own()
            return result

    def _offer_again(self) -> None:
        """A text that is not taken yet holds nothing else up: health goes on meanwhile."""
        if not self._reconciler.postponed:
            self._offers_failed = 0
        else:
            wait = wait_after(self._offers_failed)
            self._offers_failed += 1
            asyncio.get_running_loop().call_later(wait, self.trigger, Trigger.DOCUMENT)

    def _read_file(self, findings: Findings) -> None:
        """Offers what the file holds."""
        text = self._watch.read()
        if isinstance(text, str):
            self._reconciler.unreadable(text)
            return
        document = self._reconciler.document
        if document is not None and document.source.encode() == text:
            self._reconciler.still_accepted()
            return
        self._try_offer(text, findings, self._force)

    def _try_offer(
        self, text: bytes, findings: Findings, force: bool
    ) -> tuple[Change, Exception | None]:
        try:
            return self._reconciler.offer(text, findings, force=force), None
        except (ProblemsError, KernelError, StateError) as error:
            return Change(), error
        finally:
            self._note_own()

    def _note_own(self) -> None:
        self._own.update(self._reconciler.own_revisions)

    def _after_work(self) -> None:
        self._checks.set()
        self._set_timer()
        self._judge()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = self._reconciler.standings.until
        if until is not None:
            loop = asyncio.get_running_loop()
            # asyncio's clock stands still while the machine is suspended: after that, the look for
            # drift comes first.
            wait = max(0.01, until - boot_time())
            self._timer = loop.call_later(wait, self.trigger, Trigger.TIME)

    def _hear(self) -> None:
        try:
            heard = self.events.drain()
        except KernelError:
            heard = Events(lost=True)
        before = self._heard
        self._heard = Events(
            before.network or heard.network,
            before.generations + heard.generations,
            before.lost or heard.lost,
        )
        if not self._working.locked():
            self._judge()

    def _judge(self) -> None:
        """Acts on what was heard if it was somebody else's doing; not while work is under way."""
        heard, self._heard = self._heard, Events()
        foreign = set(heard.generations) - self._own
        # Only the latest of its own generations may still be heard of.
        if len(self._own) > 100:
            self._own = set(sorted(self._own)[-50:])
        if heard.network or heard.lost or foreign:
            self.trigger(Trigger.KERNEL)

    async def _watch_file(self) -> None:
        async for _ in self._watch.changes():
            self.trigger(Trigger.DOCUMENT)

    async def _look_for_drift(self) -> None:
        while True:
            await asyncio.sleep(self._drift)
            self.trigger(Trigger.DRIFT)

    async def _look_at_settings(self) -> None:
        while True:
            await asyncio.sleep(_SETTINGS)
            if not self._working.locked() and self._checks.undone():
                self.trigger(Trigger.KERNEL)
