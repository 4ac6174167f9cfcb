"""A data path of values, for tests of what stands on the port: it refuses what one must refuse.

It has no marks, no tables and no devices, so what passes on it leans on nothing of nftables'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from tula.dataplane.port import (
    ChangeStep,
    Followed,
    Memory,
    Observation,
    PathChange,
    Receipt,
    Revision,
)
from tula.kernel.failures import Failures, fallible
from tula.model.admission import IPNetwork
from tula.model.client_scopes import ClientScope, HeldClient, HeldClients
from tula.model.command import Command
from tula.model.config import Config, IPAddress
from tula.model.desired import DesiredBackend, DesiredService, DesiredState, SlotTable
from tula.model.errors import StaleError
from tula.model.flow import Flow, FlowEntry
from tula.model.health import ProbeSocket
from tula.model.problem import Problem
from tula.model.stats import BackendKey, Count, Stats

_MARK = 0x54


@dataclass(frozen=True, slots=True)
class FakeMemory:
    """The backends that there ever were, in the order of their numbers."""

    known: tuple[BackendKey, ...] = ()

    def and_all(self, names: Iterable[BackendKey]) -> FakeMemory:
        """With those of ``names`` that are new."""
        new = [name for name in names if name not in self.known]
        return FakeMemory((*self.known, *new)) if new else self


@dataclass(frozen=True, slots=True)
class FakeObservation:
    """What there is; None for nothing at all."""

    revision: Revision
    state: DesiredState | None

    @property
    def present(self) -> bool:
        return self.state is not None

    def left_out(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        if self.state is None:
            return frozenset()
        known = _memory(memory).known
        reached = set(_reached(self.state))
        return frozenset(name for name in backends if name in known and name not in reached)

    def serving(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        if self.state is None:
            return frozenset()
        known, reached = _memory(memory).known, set(_reached(self.state))
        return frozenset(name for name in backends if name in known and name in reached)

    def refusing(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        if self.state is None or not self.state.connections.enabled:
            return frozenset()
        accepting = {
            (service.name, backend.key)
            for service in self.state.services
            for backend in service.backends
            if backend.weight
        }
        return self.serving(backends, memory) - accepting

    def holds_what(self, other: Observation) -> bool:
        assert isinstance(other, FakeObservation)
        return _comparable(self.state) == _comparable(other.state)


@dataclass(frozen=True, slots=True)
class FakeChange:
    """From one state to another."""

    before: DesiredState | None
    after: DesiredState | None
    memory: FakeMemory

    def __bool__(self) -> bool:
        return _comparable(self.before) != _comparable(self.after)

    @property
    def parts(self) -> tuple[str, ...]:
        return ("rules",) if self else ()

    def steps(self) -> Iterator[ChangeStep]:
        before, after = _names(self.before), _names(self.after)
        yield from (ChangeStep("remove", "service", n) for n in before if n not in after)
        yield from (ChangeStep("add", "service", n) for n in after if n not in before)


@dataclass(frozen=True, slots=True)
class FakeReceipt:
    """What a commit left."""

    revision: Revision | None
    own: frozenset[Revision]
    memory: FakeMemory
    state: DesiredState | None
    retired: Mapping[BackendKey, Count] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    tells_again: bool = False


@dataclass
class FakeDataPath:
    """See ``DataPath``. Tests put flows and counts in, and change things as others do."""

    failures: Failures = field(default_factory=Failures)
    state: DesiredState | None = None
    revision: Revision = 1
    flows: dict[Flow, BackendKey] = field(default_factory=dict)
    counts: dict[BackendKey, Count] = field(default_factory=dict)
    interrupted: bool = False
    """Whether somebody else makes a change during each commit."""
    held: dict[tuple[str, IPNetwork], tuple[str, float]] = field(default_factory=dict)
    """The persistent clients, by the first service of their scope: Backend.key, and seconds."""
    shared: int = 0
    """How often the other balancers were told again of all flows."""

    def guard(self) -> None:
        """It has no stack of its own."""

    def meddle(self, state: DesiredState | None) -> None:
        """Somebody else makes it this."""
        self.state = state
        self.counts = {}
        self.revision += 1

    def dump(self, memory: Memory) -> dict[str, Any]:
        return {"known": [list(name) for name in _memory(memory).known]}

    def recall(self, data: Mapping[str, Any]) -> FakeMemory:
        try:
            return FakeMemory(tuple((str(s), str(b)) for s, b in data["known"]))
        except (LookupError, TypeError, ValueError):
            return FakeMemory()

    def unsupported(
        self,
        config: Config,  # noqa: ARG002
        have: Observation | None = None,  # noqa: ARG002
    ) -> list[Problem]:
        return []

    @fallible("path.observe")
    def observe(self) -> FakeObservation:
        return FakeObservation(self.revision, self.state)

    @fallible("path.observe_presence")
    def observe_presence(self) -> FakeObservation:
        return FakeObservation(self.revision, self.state)

    def removal(self, have: Observation) -> tuple[Command, ...]:
        assert isinstance(have, FakeObservation)
        return () if have.state is None else (Command(("remove", "services")),)

    def diff(
        self, have: Observation | Receipt, want: DesiredState | None, memory: Memory
    ) -> FakeChange:
        assert isinstance(have, FakeObservation | FakeReceipt)
        if isinstance(have, FakeReceipt) and (
            have.state is None or want is None or not _same_but_weights(have.state, want)
        ):
            raise StaleError
        named = _memory(memory).and_all(_reached(want) if want is not None else ())
        return FakeChange(have.state, want, named)

    @fallible("path.commit")
    def commit(self, change: PathChange, expected: Revision | None) -> FakeReceipt:
        assert isinstance(change, FakeChange)
        if expected is not None and expected != self.revision:
            raise StaleError
        if not change:
            return FakeReceipt(expected, frozenset(), change.memory, change.after)
        staying = set(_reached(change.after)) if change.after is not None else set()
        retired = {name: count for name, count in self.counts.items() if name not in staying}
        self.counts = {name: n for name, n in self.counts.items() if name in staying}
        self.flows = {flow: name for flow, name in self.flows.items() if name in staying}
        scopes = _scopes(change.after)
        self.held = {key: entry for key, entry in self.held.items() if key[0] in scopes}
        self.state = change.after
        self.revision += 1
        if self.interrupted:
            self.revision += 1
            return FakeReceipt(None, frozenset(), change.memory, change.after, retired)
        own = frozenset({self.revision})
        tells = change.after is not None and change.after.shared_with is not None
        return FakeReceipt(
            self.revision, own, change.memory, change.after, retired, tells_again=tells
        )

    @fallible("path.share_again")
    def share_again(self, left: Receipt) -> FakeReceipt:
        assert isinstance(left, FakeReceipt)
        if left.state is None or left.state.shared_with is None:
            return left
        self.shared += 1
        self.revision += 1
        if self.interrupted or left.revision != self.revision - 1:
            self.revision += self.interrupted
            return replace(left, revision=None, tells_again=False)
        own = left.own | {self.revision}
        return replace(left, revision=self.revision, own=own, tells_again=False)

    def drifted(self, left: Receipt, found: Observation) -> bool:
        assert isinstance(left, FakeReceipt)
        assert isinstance(found, FakeObservation)
        return _comparable(left.state) != _comparable(found.state)

    @fallible("path.stats")
    def stats(self, memory: Memory) -> Stats:
        known = _memory(memory).known
        return Stats({name: count for name, count in self.counts.items() if name in known})

    @fallible("path.connections")
    def connections(
        self,
        memory: Memory,
        limit: float,
        empty: Collection[BackendKey] = (),  # noqa: ARG002
    ) -> Mapping[BackendKey, int] | None:
        if limit <= 0:
            return None
        held = list(self.flows.values())
        return {name: held.count(name) for name in _memory(memory).known if name in held}

    @fallible("path.look_up")
    def look_up(self, flow: Flow, memory: Memory, datagram: int | None = None) -> FlowEntry | None:
        name = self.flows.get(flow) if datagram is None else None
        if name is None:
            return None
        return FlowEntry(*name) if name in _memory(memory).known else FlowEntry("", "")

    @fallible("path.clients")
    def clients(self, scopes: Sequence[ClientScope], memory: Memory, limit: int) -> HeldClients:
        found: list[HeldClient] = []
        cut = False
        for scope in scopes:
            held = [self._held(scope, key[1], memory) for key in self.held if key[0] == _key(scope)]
            cut = cut or len(held) > limit
            found += [entry for entry in held[:limit] if entry is not None]
        return HeldClients(tuple(found), cut)

    @fallible("path.forget_clients")
    def forget_clients(
        self,
        scopes: Sequence[ClientScope],
        client: IPAddress | None,
        memory: Memory,  # noqa: ARG002
    ) -> int | None:
        keys = {_key(scope): scope for scope in scopes}
        gone = [
            (name, network)
            for name, network in self.held
            if name in keys and (client is None or network == keys[name].client(client))
        ]
        for key in gone:
            del self.held[key]
        self.revision += bool(gone)
        return len(gone)

    @fallible("path.look_up_client")
    def look_up_client(
        self, scope: ClientScope, client: IPAddress, memory: Memory
    ) -> HeldClient | None:
        return self._held(scope, scope.client(client), memory)

    def _held(self, scope: ClientScope, client: IPNetwork, memory: Memory) -> HeldClient | None:
        entry = self.held.get((_key(scope), client))
        if entry is None:
            return None
        backend, seconds = entry
        known = any((name, backend) in _memory(memory).known for name in scope.services)
        return HeldClient(scope.services, client, backend if known else "", seconds)

    def follow(
        self,
        have: Observation,
        change: PathChange,  # noqa: ARG002
        flow: Flow,  # noqa: ARG002
        entry: FlowEntry | None,
    ) -> Followed:
        if not have.present:
            return Followed(None, None, "there is nothing")
        service, backend = (entry.service, entry.backend) if entry is not None else (None, None)
        return Followed(service, backend, "as it is")

    def choose(self, table: SlotTable, flow: Flow, seed: int, *, by_client: bool) -> int:
        port = 0 if by_client else flow.client_port
        return crc32(f"{flow.client} {port} {seed}".encode()) % len(table.slots)

    def probe_socket(self, service: str, backend: str, memory: Memory) -> ProbeSocket:
        return ProbeSocket(_MARK, _memory(memory).known.index((service, backend)) + 1)


def _memory(value: Memory) -> FakeMemory:
    assert isinstance(value, FakeMemory)
    return value


def _key(scope: ClientScope) -> str:
    return scope.services[0]


def _scopes(state: DesiredState | None) -> set[str]:
    """The scopes that there are, by their first services."""
    services = state.services if state is not None else ()
    return {_key(s.persistence) for s in services if s.persistence is not None}


def _names(state: DesiredState | None) -> list[str]:
    return [service.name for service in state.services] if state is not None else []


def _reached(state: DesiredState) -> Iterable[BackendKey]:
    """The backends that packets can be sent to."""
    return (
        (service.name, backend.key)
        for service in state.services
        for backend in service.backends
        if backend.present
    )


def _comparable(state: DesiredState | None) -> object:
    """The state with its tables by content, since they are compared by identity."""
    if state is None:
        return None
    tables = [
        None if table is None else (table.content, table.slots)
        for service in state.services
        for table in (service.maglev, service.order)
    ]
    return _but_weights(state), [s.backends for s in state.services], tables


def _but_weights(state: DesiredState) -> object:
    services = [
        (
            *(s.name, s.vips, s.protocols, s.ports, s.by_client, s.new_flows),
            *(s.persistence, s.per_packet, _keys(s)),
        )
        for s in state.services
    ]
    return state.interfaces, services, state.connections, state.seed, state.shared_with


def _keys(service: DesiredService) -> list[tuple[str, object, object]]:
    def route(backend: DesiredBackend) -> object:
        return backend.next_hops, backend.tunnel

    return [(backend.name, backend.key, route(backend)) for backend in service.backends]


def _same_but_weights(have: DesiredState, want: DesiredState) -> bool:
    return _but_weights(have) == _but_weights(want)
