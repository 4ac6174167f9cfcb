"""A daemon's writer on the fake kernel, without event loop, sockets or files of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.builders import FakeMachine, make_backend, make_config, make_service
from support.configurations import render_config
from tula.config.load import parse_config
from tula.daemon.checks import CheckPlanner
from tula.daemon.connection_counts import name_connections
from tula.daemon.reconciler import Reconciler
from tula.daemon.snapshot import Connections
from tula.daemon.writer import Offer, Writer
from tula.engine.balancer import Balancer
from tula.engine.control import Order
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings
from tula.engine.reader import Adapters
from tula.engine.store import Store
from tula.health.checker import ListedProbes
from tula.health.timing import Histogram, Lateness
from tula.kernel.events import Events
from tula.kernel.nft_data_path import NftDataPath
from tula.model.config import Config
from tula.model.errors import KernelError
from tula.model.health import BackendName, Health
from tula.model.monitor import HealthMonitor, TcpProbe


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


class FakeChecker:
    """Findings as a test says; remembers what it was to probe."""

    def __init__(self) -> None:
        self.found: dict[BackendName, Health] = {}
        self.decided: float | None = None
        self.sets = 0
        self.adopted: Mapping[BackendName, Health] = {}

    def decide(self, name: BackendName, *, up: bool) -> None:
        self.found[name] = Health(up, 1000.0, "tcp: connection refused")
        self.decided = time.monotonic()

    def findings(self) -> Mapping[BackendName, Health]:
        return dict(self.found)

    def take_decided(self) -> float | None:
        decided, self.decided = self.decided, None
        return decided

    def set_checks(
        self, _checks: object, _policies: object, adopted: Mapping[BackendName, Health]
    ) -> None:
        self.sets += 1
        self.adopted = adopted

    def listed(self) -> ListedProbes:
        return ()

    def probe_durations(self) -> Mapping[str, Histogram]:
        return {}

    def lateness(self) -> Lateness:
        return Lateness()


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
        self.reconciler, self.planner, self.writer = _make_parts(
            self.machine.adapters, self.store, clock, self.events, self.kernel_events
        )
        self.machine.balancer = self.writer._balancer

    def accept(self, config: Config) -> None:
        """Has it start and accept a configuration."""
        configuration = parse_config(render_config(config))
        offer = Offer(configuration, "tula.yaml", Order(yes=True))
        assert not self.writer.cycle({}, offer=offer).error
        assert self.writer.snapshot.configuration is configuration

    def count(self) -> Connections:
        """The connections of the fake kernel, by backend."""
        found = Balancer(self.machine.adapters, self.store).connections(1.0)
        assert found is not None
        return name_connections(self.writer.snapshot, found)


def make_writer(adapters: Adapters, store: Store, clock: Callable[[], float]) -> Writer:
    """A writer that has not started yet."""
    return _make_parts(adapters, store, clock, EventLog(clock), FakeEvents())[2]


def _make_parts(
    adapters: Adapters,
    store: Store,
    clock: Callable[[], float],
    events: EventLog,
    kernel_events: FakeEvents,
) -> tuple[Reconciler, CheckPlanner, Writer]:
    balancer = Balancer(adapters, store, clock)
    reconciler = Reconciler(balancer, store, events, clock, clock)
    settings = HostSettings(adapters.probe_route, adapters.sysctls, store)
    planner = CheckPlanner(settings, store, adapters.network, balancer.probe_socket, events)
    writer = Writer(balancer, reconciler, planner, events, kernel_events.aside, wall=clock)
    return reconciler, planner, writer


CONFIG = make_config(
    make_service(backends=[make_backend(0), make_backend(1)], health=[HealthMonitor(TcpProbe())])
)


def fake_kernel() -> Adapters:
    """The kernel that a process finds: one that was brought to the configuration."""
    daemon = FakeDaemon(Path(tempfile.mkdtemp()), CONFIG)
    daemon.accept(CONFIG)
    return daemon.machine.adapters


def broken_kernel() -> Adapters:
    machine = FakeMachine(Path(tempfile.mkdtemp()), CONFIG)

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise KernelError("no such kernel")

    broken: Any = Broken()
    return replace(machine.adapters, path=NftDataPath(broken, machine.tunnels))
