"""``tula run``: puts the daemon together, and sees it from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from tula.daemon.checks import Checks
from tula.daemon.door import Door, Parts
from tula.daemon.driver import DRIFT, Driver
from tula.daemon.held import Held
from tula.daemon.notify import READY, STOPPING, notify
from tula.daemon.pending import Trigger
from tula.daemon.reconciler import Reconciler
from tula.daemon.watch import FileWatch
from tula.engine.balancer import Balancer
from tula.engine.control import Control
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings
from tula.engine.reader import Adapters
from tula.engine.store import Store
from tula.health.checker import Checker
from tula.kernel.events import KernelEvents
from tula.kernel.probe_sockets import KernelProbeSockets, allow_many_sockets
from tula.model.event import EventKind
from tula.model.health import BackendName

Serve = Callable[[Control, Path, str | None, asyncio.Event], Awaitable[None]]
"""Answers clients on a socket in the run directory; sets the event once they can connect."""

_FAILED, _WRONG = 1, 2
_SWITCH = 0.0005


def run(
    file: Path,
    state_dir: Path,
    run_dir: Path,
    adapters: Adapters,
    *,
    serve: Serve,
    force: bool = False,
    clear_on_exit: bool = False,
    socket_group: str | None = None,
    interval: float | None = None,
) -> int:
    """Runs until SIGTERM or SIGINT, and returns the command's exit status.

    ``interval``: seconds between looks at the kernel when nothing happens. Raises KernelError and
    StateError for what keeps it from starting.
    """
    _configure_log()
    allow_many_sockets()
    # A probe's every step lets go of Python's lock; while the other thread plans, the loop would
    # wait 5 ms for it each time, and answers by then be late.
    sys.setswitchinterval(_SWITCH)
    store = Store(state_dir)
    with store.owned():
        parts = _assemble(file, store, adapters, force, interval or DRIFT)
        status = asyncio.run(_live(parts, serve, run_dir, socket_group))
        if clear_on_exit and status == 0:
            parts.balancer.clear()
    return status


def _assemble(file: Path, store: Store, adapters: Adapters, force: bool, drift: float) -> Parts:
    events, watch = EventLog(), FileWatch(file)
    balancer = Balancer(adapters, store)
    reconciler = Reconciler(balancer, store, events)
    wake: list[Callable[[], None]] = []
    checker = Checker(
        KernelProbeSockets(),
        lambda: wake[0](),
        on_evidence=lambda name: _tell_evidence(checks, events, name),
    )
    settings = HostSettings(adapters.probe_route, adapters.sysctls, store)
    checks = Checks(checker, balancer, reconciler, settings, store, adapters.network, events)
    driver = Driver(reconciler, checks, KernelEvents(), watch, force=force, drift=drift)
    wake.append(lambda: driver.trigger(Trigger.HEALTH))
    held = Held(balancer, reconciler, events, on_shares=lambda: driver.trigger(Trigger.TIME))
    return Parts(balancer, reconciler, checker, checks, driver, held, events, watch)


def _tell_evidence(checks: Checks, events: EventLog, name: BackendName) -> None:
    finding = checks.findings().get(name)
    if finding is not None:
        evidence = finding.evidence
        events.add(EventKind.BACKEND_DIAGNOSED, "/".join(name), evidence=evidence)


async def _live(parts: Parts, serve: Serve, run_dir: Path, group: str | None) -> int:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: parts.driver.trigger(Trigger.DOCUMENT))
    listening = asyncio.Event()
    with parts.driver.events:
        tasks = {
            asyncio.create_task(parts.driver.run(), name="driver"),
            asyncio.create_task(parts.checker.run(), name="checker"),
            asyncio.create_task(parts.held.run(), name="held"),
            asyncio.ensure_future(serve(Door(parts), run_dir, group, listening)),
        }
        stop = asyncio.create_task(ending.wait(), name="signals")
        ready = asyncio.create_task(_announce(parts, listening), name="ready")
        try:
            done, _ = await asyncio.wait({*tasks, stop, ready}, return_when=asyncio.FIRST_COMPLETED)
            if done == {ready} and ready.result():
                done, _ = await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
            elif done == {ready}:
                return _WRONG
            for ended in done - {stop, ready}:
                await ended  # raises what ended it
            return 0
        finally:
            notify(STOPPING)
            parts.events.add(EventKind.DAEMON_STOPPED, message="traffic goes on without it")
            for task in (*tasks, stop, ready):
                task.cancel()
            await asyncio.gather(*tasks, stop, ready, return_exceptions=True)


async def _announce(parts: Parts, listening: asyncio.Event) -> bool:
    """Says that the daemon is ready once it is; False if there is nothing that it could run."""
    await listening.wait()
    await parts.driver.started.wait()
    reconciler = parts.reconciler
    while reconciler.document is None:
        if reconciler.refused is not None:
            path = str(parts.watch.path)
            for problem in reconciler.refused.problems:
                print(problem.describe(path), file=sys.stderr)
            return False
        await asyncio.sleep(0.1)  # the kernel refused; it is tried again
    parts.events.add(EventKind.DAEMON_STARTED, message=str(parts.watch.path))
    notify(READY)
    return True


def _configure_log() -> None:
    """One line an event, on standard error: systemd puts the time before it."""
    stamp = [] if "JOURNAL_STREAM" in os.environ else [structlog.processors.TimeStamper("iso")]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *stamp,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
