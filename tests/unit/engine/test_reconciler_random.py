"""Whatever happens in whatever order, it ends at what the document and the health mean.

A machine of values is played any sequence of documents, findings, overrides, failures of kernel
and disk, foreign changes and restarts. After each calm the kernel is compared with a plain reading
of the contract, written down here without the planner.
"""

from __future__ import annotations

import shutil
import tempfile
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
from tula.config.load import parse_document
from tula.daemon.reconciler import Reconciler
from tula.dataplane.nft.ids import Ids, backend_id, split_id
from tula.dataplane.nft.ruleset import MapName
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.engine.figures import CycleOutcome
from tula.engine.store import Store
from tula.model.config import Config
from tula.model.errors import KernelError, StateError
from tula.model.health import BackendName, Health, Override
from tula.model.host import HostView
from tula.model.problem import ProblemsError

BACKENDS = "abcd"


def text(services: dict[str, dict[str, Any]]) -> bytes:
    """A document; each service names its backends with their weights."""
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

    def _write_aside(self, name: str, content: bytes) -> Any:
        if self.full:
            raise StateError(f"{name}: No space left on device")
        return super()._write_aside(name, content)


@dataclass
class Meaning:
    """What the operator and the monitors mean for one backend."""

    present: bool
    takes_new: bool


class Machine(RuleBasedStateMachine):
    """One balancer's life."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.kernel = FakeMachine(self.directory, parse_document(DOCUMENTS[0]).config)
        self.host = self.kernel.network.host
        self.store = FullDisk(self.directory)
        self.now = 1000.0
        self.findings: dict[BackendName, Health] = {}
        self.overrides: dict[BackendName, Override] = {}
        self.accepted: bytes | None = None
        self.calm = False
        self.foreign = False
        """Somebody changed something, and no cycle has compared all since."""
        self.reconciler = self.new()

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    def new(self) -> Reconciler:
        """A daemon that starts: nothing is left but the kernel and the disk."""
        clock = lambda: self.now  # noqa: E731
        balancer = self.balancer = Balancer(self.kernel.adapters, self.store, clock)
        made = Reconciler(balancer, self.store, EventLog(clock), clock)
        made.start()
        return made

    def cycle(self, compare: bool) -> None:
        result = self.reconciler.cycle(dict(self.findings), compare=compare)
        if result.outcome is not CycleOutcome.FAILED:
            self.foreign = self.foreign and not compare
            self.calm = not self.foreign

    @rule(source=st.sampled_from(DOCUMENTS))
    def a_document_is_offered(self, source: bytes) -> None:
        self.calm = False
        config = parse_document(source).config
        with suppress(KernelError, StateError, ProblemsError):
            try:
                self.reconciler.offer(source, dict(self.findings))
            except Exception:
                assert self.store.document() == self.accepted, "the old one stays"
                raise
            self.accepted = source
            names = {(s.name, b.name) for s in config.services for b in s.backends}
            if not self.store.full:
                self.overrides = {n: o for n, o in self.overrides.items() if n in names}
            self.overrides = dict(self.reconciler.overrides)

    @rule(source=st.sampled_from(WRONG))
    def a_wrong_document_is_refused(self, source: bytes) -> None:
        table = self.kernel.nftables.table
        with pytest.raises(Exception, match=r".") as refused:
            self.reconciler.offer(source, dict(self.findings))
        assert not isinstance(refused.value, (KernelError, AssertionError))
        assert self.kernel.nftables.table == table
        assert self.store.document() == self.accepted
        assert self.reconciler.refused is not None

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
            self.reconciler.override(name, override)
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

    @rule(full=st.booleans())
    def the_disk_is_full(self, full: bool) -> None:
        self.store.full = full

    @rule()
    def it_is_killed_and_started(self) -> None:
        self.reconciler = self.new()
        assert dict(self.reconciler.overrides) == self.overrides
        document = self.reconciler.document
        assert (document.source.encode() if document else None) == self.accepted
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
        config = parse_document(self.accepted).config
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
        applied = self.balancer.applied
        ids = ids_of(self.store)
        if applied is not None:
            assert isinstance(applied.receipt.memory, Ids)
            ids = applied.receipt.memory
        return {
            backend_id(ids.services[s.name], ids.backends[b.key]): (s.name, b.name)
            for s in parse_document(self.accepted).config.services
            for b in s.backends
        }

    def via(self) -> set[BackendName]:
        """The backends that packets can reach."""
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


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=80,
    stateful_step_count=30,
)
