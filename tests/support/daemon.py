"""A daemon's writer on the fake kernel, without event loop, sockets or files of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.builders import FakeMachine
from support.documents import render_document
from tula.config.load import parse_document
from tula.daemon.checks import CheckPlanner
from tula.daemon.connection_counts import name_connections
from tula.daemon.reconciler import Reconciler
from tula.daemon.writer import Writer
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings
from tula.engine.snapshot import Connections
from tula.engine.store import Store
from tula.kernel.events import Events
from tula.model.config import Config


class FakeEvents:
    """Kernel events as a test says; ``asides`` counts the changes made unheard."""

    def __init__(self) -> None:
        self.waiting = Events()
        self.asides = 0

    def filenos(self) -> tuple[int, ...]:
        return ()

    def drain(self) -> Events:
        found, self.waiting = self.waiting, Events()
        return found

    @contextmanager
    def aside(self) -> Iterator[None]:
        self.asides += 1
        yield


class FakeDaemon:
    """What the writer is made of, on the fake kernel and a directory of the test's own."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        *,
        clock: Callable[[], float] = lambda: 1000.0,
        machine: FakeMachine | None = None,
        store: Store | None = None,
    ) -> None:
        self.machine = machine or FakeMachine(directory, config)
        self.store = store or self.machine.store
        self.events = EventLog(clock)
        self.kernel_events = FakeEvents()
        adapters = self.machine.adapters
        balancer = Balancer(adapters, self.store, clock)
        self.machine.balancer = balancer
        self.reconciler = Reconciler(balancer, self.store, self.events, clock)
        settings = HostSettings(adapters.probe_route, adapters.sysctls, self.store)
        self.planner = CheckPlanner(settings, self.store, adapters.network, self.events)
        self.writer = Writer(
            balancer,
            self.reconciler,
            self.planner,
            self.events,
            self.kernel_events.aside,
            clock=clock,
        )

    def accept(self, config: Config) -> None:
        """Has it start and accept a configuration."""
        document = parse_document(render_document(config))
        assert not self.writer.cycle({}, offer=document).error
        assert self.writer.snapshot.document is document

    def count(self) -> Connections:
        """The connections of the fake kernel, by backend."""
        marks = self.machine.nftables.held(1.0)
        assert marks is not None
        return name_connections(self.writer.snapshot, marks)
