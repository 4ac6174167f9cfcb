"""What the data path by nftables hands out and takes back: observations, changes, receipts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.build import BuiltRuleset
from tula.dataplane.nft.describe import describe_transaction
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.numbered import NumberedState
from tula.dataplane.nft.numbering import merge_ids
from tula.dataplane.nft.recover import MapCounts, recover_ids
from tula.dataplane.nft.ruleset import Kind, MapName, Ruleset
from tula.dataplane.nft.tell_again import empty_hot_tables
from tula.dataplane.nft.transaction import Transaction
from tula.dataplane.nft.tunnel_devices import Tunnels
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.dataplane.nft.tunnel_steps import Devices, tunnel_steps
from tula.dataplane.port import (
    ChangeStep,
    Memory,
    Observation,
    Receipt,
    Revision,
)
from tula.model.desired import DesiredState
from tula.model.stats import BackendKey, Count


@dataclass(frozen=True, slots=True)
class NftObservation:
    """The table and the devices."""

    revision: Revision
    ruleset: Ruleset | None
    tunnels: Tunnels = field(default_factory=Tunnels)
    admitted: tuple[str, ...] | None = None
    """The digests of the rules that say whose clones are taken; None: no such table."""
    refusals: tuple[str, ...] | None = None
    """The digests of the rules that answer refused clients; None: no such table."""

    @property
    def present(self) -> bool:
        return self.ruleset is not None

    @property
    def counts(self) -> MapCounts:
        """Those of the elements, by map."""
        return self.ruleset.counts if self.ruleset is not None else {}

    def left_out(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        return frozenset(name for name, served in self._known(backends, memory) if not served)

    def serving(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        return frozenset(name for name, served in self._known(backends, memory) if served)

    def refusing(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        if self.ruleset is None:
            return frozenset()
        parsed = ((MapName.parse(name), found) for name, found in self.ruleset.maps.items())
        kinds = {name.kind: found for name, found in parsed if name is not None}
        accepting = kinds.get(Kind.ACCEPTS_NEW_FLOWS)
        if accepting is None:
            return frozenset()
        ids = merge_ids(ids_of(memory), recover_ids(self.ruleset))
        serving = self.serving(backends, memory)
        return frozenset(name for name in serving if ids.mark(*name) not in accepting)

    def _known(
        self, backends: Iterable[BackendKey], memory: Memory
    ) -> Iterator[tuple[BackendKey, bool]]:
        """Those that have an id, and whether packets go to them."""
        if self.ruleset is None:
            return
        ids = merge_ids(ids_of(memory), recover_ids(self.ruleset))
        marks = {mark for elements in self.counts.values() for mark in elements}
        yield from ((n, ids.mark(*n) in marks) for n in backends if ids.knows(*n))

    def holds_what(self, other: Observation) -> bool:
        found = observation_of(other)
        same = self.ruleset == found.ruleset and self.tunnels == found.tunnels
        same = same and self.admitted == found.admitted
        return same and self.refusals == found.refusals


@dataclass(frozen=True, slots=True)
class Target:
    """What the data path is brought to, in all the forms that the next difference needs."""

    state: DesiredState
    numbered: NumberedState
    built: BuiltRuleset
    ids: Ids

    @property
    def tell_again(self) -> Transaction:
        """Has other balancers hear of all active flows again."""
        return empty_hot_tables(self.built.ruleset)


@dataclass(frozen=True, slots=True)
class NftChange:
    """Steps for the table and for devices; ``target`` is None when everything goes."""

    memory: Ids
    transaction: Transaction = ()
    tunnels: TunnelChange = field(default_factory=TunnelChange)
    had_tunnels: Tunnels = field(default_factory=Tunnels)
    target: Target | None = None
    known: Ids = field(default_factory=Ids)
    """The numbers before it."""
    retired: MapCounts | None = None
    """The counts of elements that go; None: to be read just before they do."""

    def __bool__(self) -> bool:
        return bool(self.transaction or self.tunnels)

    @property
    def parts(self) -> tuple[str, ...]:
        named = {"rules": bool(self.transaction), "tunnels": bool(self.tunnels)}
        return tuple(name for name, there in named.items() if there)

    def steps(self) -> Iterator[ChangeStep]:
        wanted = self.target.numbered.tunnels.devices if self.target is not None else {}
        devices: Devices = {**wanted, **self.had_tunnels.devices}
        yield from tunnel_steps(self.tunnels, devices, before=True)
        yield from describe_transaction(self.transaction)
        yield from tunnel_steps(self.tunnels, devices, before=False)


@dataclass(frozen=True, slots=True)
class NftReceipt:
    """What a commit left."""

    revision: Revision | None
    own: frozenset[Revision]
    memory: Ids
    retired: Mapping[BackendKey, Count] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    target: Target | None = None
    tells_again: bool = False


def observation_of(value: Observation | Receipt) -> NftObservation:
    if not isinstance(value, NftObservation):
        raise TypeError(f"an observation of another data path: {value!r}")
    return value


def receipt_of(value: Receipt) -> NftReceipt:
    if not isinstance(value, NftReceipt):
        raise TypeError(f"a receipt of another data path: {value!r}")
    return value


def ids_of(value: Memory) -> Ids:
    if not isinstance(value, Ids):
        raise TypeError(f"a memory of another data path: {value!r}")
    return value
