"""Whatever happens in whatever order, it ends at what the configuration and the health mean.

A machine of values is played any sequence of configurations, findings, overrides, failures of
kernel and disk, foreign changes and restarts; any call of any adapter may fail. After each calm
the kernel is compared with a plain reading of the contract, written down here without the planner.
Threads read the published snapshots all the while: none is half made, and none ever changes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from support.builders import FakeMachine, ids_of
from support.daemon import make_writer
from support.failures import Failures
from tula.config.load import ConfigError, parse_config
from tula.daemon.problems import place_problems
from tula.daemon.snapshot import Snapshot
from tula.daemon.writer import Writer
from tula.dataplane.nft.ids import Ids, backend_id, split_id
from tula.dataplane.nft.ruleset import MapName
from tula.engine.control import Order
from tula.engine.statistics import CycleOutcome
from tula.engine.store import Store
from tula.model.config import Config
from tula.model.errors import KernelError, StateError
from tula.model.health import BackendName, Health, Override
from tula.model.host import HostView
from tula.model.problem import ProblemsError

BACKENDS = "abcd"


def text(services: dict[str, dict[str, Any]]) -> bytes:
    """A configuration; each service names its backends with their weights."""
    lines = ["interfaces: [eth0]", "services:"]
    for number, (name, keys) in enumerate(services.items()):
        lines += [f"  {name}:", f"    vip: 10.0.0.{100 + number}", "    ports: [80]"]
        lines += ["    forwarding: l2", f"    scheduler: {keys.get('scheduler', 'maglev')}"]
        if keys.get("health", True):
            panic = keys.get("panic", 0)
            lines.append(f"    health: {{type: tcp, panic_threshold: {panic}}}")
        lines.append("    backends:")
        lines += [
            f"      {backend}: {{address: 10.0.0.{11 + BACKENDS.index(backend)}, weight: {weight}}}"
            for backend, weight in keys["backends"].items()
        ]
    return "\n".join(lines).encode()


ALL = dict.fromkeys(BACKENDS, 100)
DOCUMENTS = [
    text({"web": {"backends": ALL}, "api": {"backends": ALL}}),
    text({"web": {"backends": {"a": 100, "b": 100}}, "api": {"backends": ALL, "panic": 50}}),
    text({"web": {"backends": {**ALL, "c": 0}, "panic": "never", "scheduler": "wrr"}}),
    text({"api": {"backends": {"b": 50, "d": 100}, "health": False}, "web": {"backends": ALL}}),
]
WRONG = [b"services: {", text({"web": {"backends": ALL}}).replace(b"eth0", b"eth7")]
SERVICES = ("web", "api")
NAMES = st.tuples(st.sampled_from(SERVICES), st.sampled_from(BACKENDS))


class FullDisk(Store):
    """A state directory that may be full."""

    full = False

    def _write_aside(self, name: str, text: bytes, mode: int = 0o644) -> Any:
        if self.full:
            raise StateError(f"{name}: No space left on device")
        return super()._write_aside(name, text, mode)


@dataclass
class Meaning:
    """What the operator and the monitors mean for one backend."""

    present: bool
    takes_new: bool


def check(snapshot: Snapshot) -> None:
    """Whatever is published fits together."""
    configuration, statuses, applied = (
        snapshot.configuration,
        snapshot.statuses.of,
        snapshot.applied,
    )
    if configuration is None:
        assert not statuses
        return
    names = {(s.name, b.name) for s in configuration.config.services for b in s.backends}
    assert not statuses or statuses.keys() == names, "statuses are of the configuration"
    if applied is not None:
        services = {service.name for service in configuration.config.services}
        assert {service.name for service in applied.config.services} <= services
        assert services >= set(snapshot.remembered.retired)
        assert applied.receipt.own <= snapshot.known_revisions
    assert snapshot.shares.keys() <= {s.name for s in configuration.config.services}


class SnapshotReader:
    """A thread that reads what a writer publishes, for as long as it is not stopped."""

    def __init__(self, writer: Callable[[], Writer]) -> None:
        self._writer = writer
        self._ending = threading.Event()
        self._error: AssertionError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Ends it, and raises what it found."""
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        seen: list[tuple[Snapshot, dict[Any, Any], dict[Any, Any]]] = []
        writer, last = self._writer(), 0
        try:
            while not self._ending.is_set():
                if self._writer() is not writer:
                    writer, last = self._writer(), 0
                    continue
                snapshot = writer.snapshot
                assert snapshot.revision >= last, "revisions grow"
                if snapshot.revision > last:
                    last = snapshot.revision
                    check(snapshot)
                    copies = dict(snapshot.statuses.of), dict(snapshot.overrides)
                    seen.append((snapshot, *copies))
                time.sleep(0.0001)
            for snapshot, statuses, overrides in seen:
                assert (snapshot.statuses.of, snapshot.overrides) == (statuses, overrides)
        except AssertionError as error:
            self._error = error


class Machine(RuleBasedStateMachine):
    """One balancer's life."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.kernel = FakeMachine(self.directory, parse_config(DOCUMENTS[0]).config)
        self.host = self.kernel.network.host
        self.store = FullDisk(self.directory)
        self.now = 1000.0
        self.findings: dict[BackendName, Health] = {}
        self.overrides: dict[BackendName, Override] = {}
        self.accepted: bytes | None = None
        self.calm = False
        self.foreign = False
        """Somebody changed something, and no cycle has compared all since."""
        self.failures = Failures()
        self.writer = self.new()
        self.reader = SnapshotReader(lambda: self.writer)

    def teardown(self) -> None:
        self.reader.stop()
        shutil.rmtree(self.directory)

    @property
    def snapshot(self) -> Snapshot:
        """What the writer has published."""
        return self.writer.snapshot

    def new(self) -> Writer:
        """A daemon that starts: nothing is left but the kernel and the disk."""
        adapters = self.failures.wrap(self.kernel)
        made = make_writer(adapters, self.store, lambda: self.now)
        made.cycle(dict(self.findings))
        return made

    def cycle(self, compare: bool) -> None:
        result = self.writer.cycle(dict(self.findings), compare=compare)
        if result.outcome is not CycleOutcome.FAILED:
            self.foreign = self.foreign and not compare
            # A VIP that could not be taken is told, and keeps nothing else from its service.
            self.calm = not self.foreign and not self.snapshot.obstacles

    @rule(source=st.sampled_from(DOCUMENTS))
    def a_document_is_offered(self, source: bytes) -> None:
        self.calm = False
        configuration = parse_config(source)
        config = configuration.config
        with suppress(KernelError, StateError, ProblemsError):
            try:
                self.writer.apply(configuration, dict(self.findings), Order(yes=True))
            except Exception:
                assert self.store.configuration() == self.accepted, "the old one stays"
                raise
            self.accepted = source
            names = {(s.name, b.name) for s in config.services for b in s.backends}
            if not self.store.full:
                self.overrides = {n: o for n, o in self.overrides.items() if n in names}
            self.overrides = dict(self.snapshot.overrides)

    @rule(source=st.sampled_from(WRONG))
    def a_wrong_document_is_refused(self, source: bytes) -> None:
        table = self.kernel.nftables.table
        self.failures.due = None
        try:
            configuration = parse_config(source)
        except ConfigError as error:
            self.writer.refuse(place_problems(error, error.positions), "tula.yaml")
        else:
            with pytest.raises(ProblemsError) as refused:
                self.writer.apply(configuration, dict(self.findings), Order(yes=True))
            problems = place_problems(refused.value, configuration.positions)
            self.writer.refuse(problems, "tula.yaml")
        assert self.kernel.nftables.table == table
        assert self.store.configuration() == self.accepted
        assert self.snapshot.refused is not None

    @initialize(source=st.sampled_from(DOCUMENTS))
    def the_first_document(self, source: bytes) -> None:
        self.a_document_is_offered(source)

    @rule(found=st.dictionaries(NAMES, st.sampled_from([True, False, None]), min_size=1))
    def monitors_decide(self, found: dict[BackendName, bool | None]) -> None:
        self.findings |= {name: Health(up, self.now, "evidence") for name, up in found.items()}
        self.calm = False

    @rule(found=st.dictionaries(NAMES, st.booleans(), min_size=1))
    def health_changes(self, found: dict[BackendName, bool | None]) -> None:
        self.monitors_decide(found)
        self.cycle(compare=False)

    @rule(
        name=NAMES,
        drain=st.booleans(),
        disable=st.booleans(),
        weight=st.sampled_from([None, 0, 7]),
        deadline=st.sampled_from([None, 5.0]),
    )
    def the_operator_speaks(
        self, name: BackendName, drain: bool, disable: bool, weight: int | None, deadline: Any
    ) -> None:
        until = self.now + deadline if deadline and drain else None
        override = Override(drain, disable, weight, self.now, until)
        self.calm = False
        try:
            self.writer.override(name, lambda _: override, dict(self.findings))
        except StateError:
            assert self.store.full
            assert self.store.overrides() == self.overrides
            return
        self.overrides = {**self.overrides, name: override}
        if not override:
            del self.overrides[name]

    @rule(seconds=st.sampled_from([1.0, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.calm = False

    @rule(compare=st.booleans())
    def a_cycle(self, compare: bool) -> None:
        self.cycle(compare)

    @rule()
    def somebody_flushes_the_ruleset(self) -> None:
        self.foreign = True
        self.kernel.nftables.meddle(None)
        self.calm = False

    @rule()
    @precondition(lambda self: self.kernel.nftables.table is not None)
    def somebody_takes_elements_away(self) -> None:
        self.foreign = True
        table = self.kernel.nftables.table
        assert table is not None
        maps = {name: ({} if name.startswith("nexthop") else m) for name, m in table.maps.items()}
        self.kernel.nftables.meddle(replace(table, maps=maps))
        self.calm = False

    @rule()
    def somebody_takes_the_vips_away(self) -> None:
        self.foreign = True
        host = self.kernel.network.host
        left = tuple(held for held in host.addresses if not held.ours)
        self.kernel.network.host = replace(host, addresses=left)
        self.calm = False

    @rule()
    def the_card_is_taken_out(self) -> None:
        self.foreign = True
        links = {name: link for name, link in self.host.links.items() if name != "eth0"}
        left = tuple(held for held in self.host.addresses if held.interface != "eth0")
        self.kernel.network.host = HostView(links, left, {})
        self.calm = False

    @rule()
    def the_card_is_back(self) -> None:
        self.foreign = True
        self.kernel.network.host = self.host
        self.calm = False

    @rule(refuses=st.booleans())
    def the_kernel_refuses(self, refuses: bool) -> None:
        self.kernel.nftables.refuse = "Device or resource busy" if refuses else ""

    @rule(calls=st.integers(0, 12))
    def some_call_will_fail(self, calls: int) -> None:
        self.failures.due = calls

    @rule(full=st.booleans())
    def the_disk_is_full(self, full: bool) -> None:
        self.store.full = full

    @rule()
    def it_is_killed_and_started(self) -> None:
        self.failures.due = None
        self.writer = self.new()
        assert dict(self.snapshot.overrides) == self.overrides
        configuration = self.snapshot.configuration
        assert (configuration.source.encode() if configuration else None) == self.accepted
        self.calm = False

    @rule()
    def the_machine_is_started_anew(self) -> None:
        self.foreign = True
        self.kernel.nftables.meddle(None)
        self.kernel.network.host = self.host
        self.it_is_killed_and_started()

    @invariant()
    def a_calm_kernel_is_what_is_meant(self) -> None:
        if not self.calm or self.accepted is None:
            return
        config = parse_config(self.accepted).config
        there = "eth0" in self.kernel.network.host.links
        assert self.via() == {
            name for name, meant in self.meant(config).items() if meant.present and there
        }
        assert self.choosable(config) == {
            name for name, meant in self.meant(config).items() if meant.takes_new and there
        }
        vips = {str(held.address.ip) for held in self.kernel.network.host.addresses if held.ours}
        assert vips == ({str(v) for s in config.services for v in s.vips} if there else set())

    def meant(self, config: Config) -> dict[BackendName, Meaning]:
        """The contract, read plainly."""
        found: dict[BackendName, Meaning] = {}
        for service in config.services:
            wanted: dict[str, int] = {}
            down: set[str] = set()
            for backend in service.backends:
                name = (service.name, backend.name)
                said = self.overrides.get(name, Override())
                weight = backend.weight if said.weight is None else said.weight
                ended = said.drain and said.deadline is not None and said.deadline <= self.now
                finding = self.findings.get(name)
                if finding is not None and finding.up is False:
                    down.add(backend.name)
                if not (said.disable or ended or said.drain):
                    wanted[backend.name] = weight
                present = not said.disable and not ended and backend.name not in down
                takes = present and not said.drain and weight > 0
                found[name] = Meaning(present, takes)
            wanted = {name: weight for name, weight in wanted.items() if weight}
            total, lost = sum(wanted.values()), sum(w for n, w in wanted.items() if n in down)
            panic = service.policy.panic
            if panic is not None and lost and (total - lost) * 100 <= panic * total:
                for backend_name in set(wanted) & down:
                    found[service.name, backend_name] = Meaning(True, True)
        return found

    def names(self) -> dict[int, BackendName]:
        """Backends by their ids in the kernel."""
        assert self.accepted is not None
        applied = self.snapshot.applied
        ids = ids_of(self.store)
        if applied is not None:
            assert isinstance(applied.receipt.memory, Ids)
            ids = applied.receipt.memory
        return {
            backend_id(ids.services[s.name], ids.backends[b.key]): (s.name, b.name)
            for s in parse_config(self.accepted).config.services
            for b in s.backends
        }

    def via(self) -> set[BackendName]:
        """The backends that packets can routes."""
        table, names = self.kernel.nftables.table, self.names()
        assert table is not None
        return {
            names[mark]
            for name, elements in table.maps.items()
            if name.startswith("nexthop")
            for mark in elements
            if isinstance(mark, int)
        }

    def choosable(self, config: Config) -> set[BackendName]:
        """The backends that some slot of their service's table leads to."""
        table, names = self.kernel.nftables.table, self.names()
        assert table is not None
        found = set()
        for service in config.services:
            chain = table.chains[f"service4.{service.name}"]
            for name, elements in table.maps.items():
                parsed = MapName.parse(name)
                if parsed is None or not parsed.kind.numbered:
                    continue
                if not any(f"@{name} " in f"{rule.text} " for rule in chain.rules):
                    continue
                backends = {split_id(v)[1] for v in elements.values() if isinstance(v, int)}
                found |= {
                    name_
                    for mark, name_ in names.items()
                    if name_[0] == service.name and split_id(mark)[1] in backends
                }
        return found


class TestMachine(Machine.TestCase):
    """Threads take turns some thousand times more often than usual."""

    def setUp(self) -> None:
        super().setUp()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self.addCleanup(sys.setswitchinterval, interval)


TestMachine.settings = settings(
    max_examples=80,
    stateful_step_count=30,
)
