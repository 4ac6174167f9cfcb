"""``tula run``: puts the daemon together, and sees it from its start to its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from tula.daemon.advice_keeper import AdviceKeeper
from tula.daemon.announcements import Announcements
from tula.daemon.checks import CheckPlanner, Checks
from tula.daemon.clients_full import ClientsFull
from tula.daemon.components import Components
from tula.daemon.connection_counts import ConnectionCounter
from tula.daemon.drift import DriftDetector
from tula.daemon.engines import BootGate
from tula.daemon.everywhere.assemble import make_everywhere, name_by_addresses
from tula.daemon.everywhere.service import Everywhere
from tula.daemon.gateway import Gateway
from tula.daemon.journal import is_journal, prefix_level
from tula.daemon.large_packets import LargePacketWatch
from tula.daemon.local_control import LocalControl
from tula.daemon.loop import ControlLoop
from tula.daemon.notify.others import others_by
from tula.daemon.notify.service import Notifier
from tula.daemon.own_changes import follow_events
from tula.daemon.own_peer_view import own_role
from tula.daemon.peers import PeerWatch
from tula.daemon.readers import MakeAdapters
from tula.daemon.reconciler import Reconciler
from tula.daemon.supervisor import Supervisor
from tula.daemon.systemd import READY, STOPPING, keep_watchdog, notify, watchdog_interval
from tula.daemon.triggers import Trigger
from tula.daemon.watch import FileWatch
from tula.daemon.writer import Writer
from tula.engine.advice_file import AdviceFile
from tula.engine.audit import AuditLog, Result, new_entry
from tula.engine.balancer import Balancer
from tula.engine.callers import DAEMON, GatewayProcesses
from tula.engine.control import Control
from tula.engine.event_file import EventFile
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings
from tula.engine.store import Store
from tula.health.checker import Checker
from tula.kernel.announce import KernelAnnouncer
from tula.kernel.events import KernelEvents
from tula.kernel.large_packets import KernelLargePackets, KernelSenderTeller
from tula.kernel.probe_sockets import KernelProbeSockets, allow_many_sockets
from tula.model.errors import KernelError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName

Serve = Callable[
    [Control, Path, str | None, asyncio.Event, GatewayProcesses, AuditLog], Awaitable[None]
]
"""Answers clients on a socket in the run directory; sets the event once they can connect."""

_FAILED, _WRONG = 1, 2
_SWITCH = 0.0005
_SAMPLES = 5.0
"""Seconds between readings of the counters, for rates."""
_DRIFT = 60.0
"""Seconds between looks at the whole kernel when nothing happens."""


def run(
    file: Path,
    state_dir: Path,
    run_dir: Path,
    make_adapters: MakeAdapters,
    *,
    serve: Serve,
    watch: bool = False,
    force: bool = False,
    clear_on_exit: bool = False,
    socket_group: str | None = None,
    interval: float | None = None,
) -> int:
    """Runs until SIGTERM or SIGINT, and returns the command's exit status.

    ``watch``: a changed file is taken at once. ``interval``: seconds between looks at the kernel
    when nothing happens. Raises KernelError and StateError for what keeps it from starting.
    """
    _configure_log()
    allow_many_sockets()
    # A probe's every step lets go of Python's lock; while the other thread plans, the loop would
    # wait 5 ms for it each time, and answers by then be late.
    sys.setswitchinterval(_SWITCH)
    store = Store(state_dir)
    with store.owned():
        processes = GatewayProcesses()
        daemon = _assemble(
            file, store, make_adapters, watch, force, (state_dir, run_dir, processes)
        )
        with (
            daemon.audit.written(),
            daemon.components.events.stored(EventFile(state_dir, on_failure=_tell_unsaved)),
        ):
            try:
                status = asyncio.run(
                    _live(daemon, serve, run_dir, socket_group, interval or _DRIFT)
                )
            finally:
                daemon.gateway.close()
                daemon.everywhere.close()
                daemon.components.loop.close()
                daemon.advice.end()
                daemon.writer.end(daemon.components.checks.findings())
                daemon.control.close()
                if daemon.components.notifier is not None:
                    daemon.components.notifier.close()
            if clear_on_exit and status == 0:
                daemon.balancer.clear()
                daemon.audit.add(
                    new_entry(DAEMON, "clear").ended(Result.DONE, how="the daemon ends")
                )
    return status


@dataclass(frozen=True, slots=True)
class _Daemon:
    """The parts that ``run`` starts and ends."""

    balancer: Balancer
    writer: Writer
    components: Components
    control: LocalControl
    kernel_events: KernelEvents
    announcements: Announcements
    engines: BootGate
    large_packets: LargePacketWatch
    gateway: Gateway
    peers: PeerWatch
    gateways: GatewayProcesses
    audit: AuditLog
    everywhere: Everywhere
    advice: AdviceKeeper


def _assemble(
    path: Path,
    store: Store,
    make_adapters: MakeAdapters,
    follow_file: bool,
    force: bool,
    network: tuple[Path, Path, GatewayProcesses],
) -> _Daemon:
    adapters, events, file = make_adapters(), EventLog(), FileWatch(path)
    kernel_events, supervisor = KernelEvents(), Supervisor(events)
    adapters.path.guard()
    adapters.vips.hold()
    balancer = Balancer(adapters, store)
    said = AdviceFile(store.directory)
    settings = HostSettings(adapters.probe_route, adapters.sysctls, store)
    writer = Writer(
        balancer,
        Reconciler(balancer, store, events),
        CheckPlanner(settings, store, adapters.network, balancer.probe_socket, events),
        events,
        kernel_events.muted,
        said=said.read,
    )
    wake: list[Callable[[], None]] = []
    checker = Checker(
        KernelProbeSockets(),
        lambda: wake[0](),
        on_evidence=lambda name: _tell_evidence(checks, events, name),
    )
    checks = Checks(checker)
    advice = AdviceKeeper(
        said, lambda: loop.snapshot.running if checks.following else None, checks.findings
    )
    loop = ControlLoop(
        writer,
        checks,
        kernel_events,
        file,
        adapters.sysctls,
        supervisor,
        follow_file=follow_file,
        force=force,
    )
    wake.append(lambda: loop.trigger(Trigger.HEALTH))
    announcements = Announcements(adapters.network, KernelAnnouncer())
    large_packets = LargePacketWatch(KernelLargePackets, KernelSenderTeller())
    state_dir, run_dir, gateways = network
    gateway = Gateway(state_dir, run_dir, events, gateways)
    audit = AuditLog(store.directory, lambda why: events.add(EventKind.AUDIT_FAILED, message=why))
    events.followers.append(follow_events(audit))
    peers = PeerWatch(
        *(state_dir, lambda: loop.snapshot, events, loop.share_flows),
        lambda: own_role(loop.snapshot),
    )
    notifier = Notifier(state_dir, events, others_by(lambda: peers.standing), supervisor.failed)
    peers.own.notified = notifier.notified
    engines = BootGate(
        *(adapters.vips, lambda: loop.snapshot, checks.findings, events),
        peers.learn_flows,
    )
    full = ClientsFull(events)
    components = Components(
        loop,
        checker,
        checks,
        events,
        file,
        supervisor,
        lambda: large_packets.counters,
        lambda: gateway.facts,
        lambda: (
            *peers.facts.problems,
            *((audit.problem,) if audit.problem else ()),
            *everywhere.problems(),
            *full.problems,
            *notifier.problems(),
        ),
        peers,
        full,
        notifier,
    )
    control = LocalControl(components, make_adapters, store)
    everywhere = make_everywhere(
        *(control, loop, writer, store, events, file), name_by_addresses(adapters.network)
    )
    control.everywhere = everywhere
    loop.followers += [announcements.follow, large_packets.follow, gateway.follow, notifier.follow]
    loop.followers.append(lambda snapshot: kernel_events.watch_neighbours(snapshot.forwarders))
    return _Daemon(
        balancer,
        writer,
        components,
        control,
        kernel_events,
        announcements,
        engines,
        large_packets,
        gateway,
        peers,
        gateways,
        audit,
        everywhere,
        advice,
    )


def _tell_unsaved(error: str) -> None:
    structlog.get_logger("tula").warning("events-not-saved", message=error)


def _tell_evidence(checks: Checks, events: EventLog, name: BackendName) -> None:
    finding = checks.findings().get(name)
    if finding is not None:
        evidence = finding.evidence
        events.add(EventKind.BACKEND_DIAGNOSED, "/".join(name), evidence=evidence)


async def _live(
    daemon: _Daemon, serve: Serve, run_dir: Path, group: str | None, interval: float
) -> int:
    loop, ending, parts = asyncio.get_running_loop(), asyncio.Event(), daemon.components
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: parts.loop.take_file("SIGHUP", "SIGHUP"))
    listening = asyncio.Event()
    with daemon.kernel_events:
        tasks = {
            asyncio.create_task(parts.loop.run(), name="control-loop"),
            asyncio.create_task(parts.checker.run(), name="checker"),
            asyncio.ensure_future(
                serve(daemon.control, run_dir, group, listening, daemon.gateways, daemon.audit)
            ),
            *(asyncio.create_task(task) for task in _kept(daemon, interval)),
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


def _kept(daemon: _Daemon, interval: float) -> list[Coroutine[Any, Any, None]]:
    """The tasks without which the daemon goes on, and which it starts again when they fail."""
    parts, control = daemon.components, daemon.control
    counter = ConnectionCounter(
        lambda: parts.loop.snapshot, control.count_connections, parts.loop.count
    )
    drift = DriftDetector(
        lambda: parts.loop.snapshot,
        control.compare,
        lambda: parts.loop.trigger(Trigger.DRIFT),
        interval,
    )
    kept = [
        parts.supervisor.keep("connection-counts", counter.run),
        parts.supervisor.keep("drift-detection", drift.run),
        parts.supervisor.keep("rates", lambda: _sample(control)),
        parts.supervisor.keep("announcements", daemon.announcements.run),
        parts.supervisor.keep("engines", daemon.engines.run),
        parts.supervisor.keep("large-packets", daemon.large_packets.run),
        parts.supervisor.keep("gateway", daemon.gateway.run),
        parts.supervisor.keep("peers", daemon.peers.run),
        parts.supervisor.keep("everywhere", daemon.everywhere.run),
        parts.supervisor.keep("advice", daemon.advice.run),
    ]
    watchdog = watchdog_interval()
    if watchdog is not None:
        kept.append(
            parts.supervisor.keep(
                "watchdog", lambda: keep_watchdog(watchdog, parts.loop.busy_seconds)
            )
        )
    return kept


async def _sample(control: LocalControl) -> None:
    while True:
        with suppress(KernelError, StateError):  # a status tells what is wrong
            await control.sample()
        await asyncio.sleep(_SAMPLES)


async def _announce(parts: Components, listening: asyncio.Event) -> bool:
    """Says that the daemon is ready once it is; False if there is nothing that it could run."""
    await listening.wait()
    await parts.loop.started.wait()
    while parts.loop.snapshot.configuration is None:
        refused = parts.loop.snapshot.refused
        if refused is not None:
            path = str(parts.watch.path)
            for problem in refused.problems:
                print(problem.describe(path), file=sys.stderr)
            return False
        await asyncio.sleep(0.1)  # the kernel refused; it is tried again
    parts.events.add(EventKind.DAEMON_STARTED, message=str(parts.watch.path))
    notify(READY)
    return True


def _configure_log() -> None:
    """One line an event, on standard error: the journal puts the time before it."""
    journal = is_journal()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *([] if journal else [structlog.processors.TimeStamper("iso")]),
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], drop_missing=True
            ),
            *([prefix_level] if journal else []),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
