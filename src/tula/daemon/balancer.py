"""One machine's balancer: brings kernel and addresses to a document, and tells how they stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tula.daemon.store import Memory, PastCounts, StateError, Store
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.flow_keys import flow_key, flow_tables, fragment_key, fragment_tables
from tula.dataplane.nft.recover import (
    MapCounts,
    counts_by_id,
    recover_ids,
    renamed_services,
)
from tula.dataplane.nft.ruleset import Count, Kind, MapName, Ruleset
from tula.dataplane.nft.shape import shape_ruleset
from tula.dataplane.nft.transaction import Transaction
from tula.dataplane.tunnels import TunnelChange, diff_tunnels
from tula.kernel.announce import Announcer
from tula.kernel.network import Network
from tula.kernel.nftables import KernelError, Nftables
from tula.kernel.tunnels import TunnelAdapter
from tula.model.config import Config, Forwarding, IPAddress
from tula.model.desired import OwnedAddress
from tula.model.host import HostView
from tula.model.ids import Ids, backend_id, split_id
from tula.model.problem import ProblemsError
from tula.model.tunnel import TunnelDevice, Tunnels
from tula.plan.desired import plan_desired
from tula.plan.ids import merge_ids, plan_ids
from tula.plan.reach import backend_addresses, plan_reach
from tula.plan.trace import Entry, Flow
from tula.plan.tunnel_kinds import missing_tunnels
from tula.plan.tunnels import Outer


@dataclass(frozen=True, slots=True)
class Change:
    """What stands between the machine and a document."""

    transaction: Transaction = ()
    add: tuple[OwnedAddress, ...] = ()
    remove: tuple[OwnedAddress, ...] = ()
    tunnels: TunnelChange = field(default_factory=TunnelChange)
    devices: Mapping[str, TunnelDevice | None] = field(default_factory=dict)
    """Tula's tunnel devices, those before the change and those after it."""

    def __bool__(self) -> bool:
        return bool(self.transaction or self.add or self.remove or self.tunnels)


@dataclass(frozen=True, slots=True)
class TableUse:
    """One table that packets fill; ``entries`` is None where the kernel does not tell."""

    name: str
    entries: int | None
    size: int


@dataclass(frozen=True, slots=True)
class _Prepared:
    change: Change
    memory: Memory
    host: HostView


@dataclass(frozen=True, slots=True)
class Adapters:
    """The kernel as the balancer sees it; fakes in tests."""

    nftables: Nftables
    network: Network
    announcer: Announcer
    tunnels: TunnelAdapter


class Balancer:
    """Composes plan, data path and kernel for one network namespace and one state directory.

    Methods raise ProblemsError for a document that does not fit this machine, KernelError and
    StateError for what failed; in each case what was there before is there still.
    """

    def __init__(
        self, kernel: Adapters, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` tells seconds since the epoch."""
        self._kernel = kernel
        self._store = store
        self._clock = clock

    def plan(self, config: Config, source: bytes, *, force: bool = False) -> Change:
        """What ``apply`` would do; changes nothing."""
        return self._prepare(config, force or self._accepted(source)).change

    def apply(self, config: Config, source: bytes, *, force: bool = False) -> Change:
        """Brings the kernel to the document in one step, and returns what was done."""
        with self._store.locked():
            prepared = self._prepare(config, force or self._accepted(source))
            before = self._store.memory()
            # Ids first, so that a full disk is found before the kernel is changed. Counts last:
            # an element that is still there must not count twice.
            early = Memory(prepared.memory.ids, before.past)
            self._remember(before, early)
            try:
                accept = self._store.prepare_document(source)
                self._commit(prepared.change, prepared.host)
            except (KernelError, StateError):
                # The old document goes on, and its counts are found by the old ids.
                self._remember(early, before)
                raise
            accept()
            self._remember(early, prepared.memory)
            self._announce(prepared)
            self._remove(prepared.change)
        return prepared.change

    def clear(self) -> Change:
        """Takes everything back that Tula made; the ids stay in memory, the document aside."""
        with self._store.locked():
            host = self._kernel.network.view(())
            table = Ruleset() if self._kernel.nftables.exists() else None
            change = Change(
                transaction=diff_rulesets(table, None),
                remove=_owned(host),
                tunnels=diff_tunnels(host.tunnels, Tunnels()),
                devices=host.tunnels.devices,
            )
            self._commit(change, host)
            self._remove(change)
            self._store.clear_document()
            self._store.save_memory(Memory(ids=self._store.memory().ids))
        return change

    def backend_counts(self, config: Config) -> dict[tuple[str, str], Count]:
        """Packets and bytes by (service, Backend.key), those of earlier tables included."""
        memory = self._store.memory()
        totals = {
            (service, key): count
            for service, keys in memory.past.items()
            for key, count in keys.items()
        }
        live = counts_by_id(self._kernel.nftables.counts())
        ids = memory.ids
        for service in config.services:
            for backend in service.backends:
                if service.name not in ids.services or backend.key not in ids.backends:
                    continue
                mark = backend_id(ids.services[service.name], ids.backends[backend.key])
                if mark in live:
                    key = (service.name, backend.key)
                    totals[key] = totals.get(key, Count()) + live[mark]
        return totals

    def outers(self, config: Config) -> Mapping[IPAddress, Outer]:
        """Between which addresses the tunnels are, by where they end."""
        if all(service.forwarding is Forwarding.L2 for service in config.services):
            return {}
        host = self._kernel.network.view(backend_addresses(config))
        return plan_reach(config, host, force=True).outers

    def flow_tables(self) -> list[TableUse]:
        """How full the tables of connections are."""
        nftables = self._kernel.nftables
        found = nftables.entries() if nftables.exists() else {}
        parsed = ((MapName.parse(name), entries) for name, entries in sorted(found.items()))
        return [
            TableUse(name.kind.value, entries, name.size)
            for name, entries in parsed
            if name is not None and name.kind.dynamic and not name.kind.hot
        ]

    def find_entry(self, flow: Flow, datagram: int | None = None) -> Entry | None:
        """What the kernel holds for a flow, or for one datagram's fragments by its id."""
        nftables = self._kernel.nftables
        present = nftables.entries() if nftables.exists() else {}
        if datagram is None:
            tables, key = flow_tables(flow, present), flow_key(flow)
        else:
            tables, key = fragment_tables(flow, present), fragment_key(flow, datagram)
        marks = (nftables.mark_of(table, key) for table in tables)
        mark = next((mark for mark in marks if mark is not None), None)
        if mark is None:
            return None
        service, backend = split_id(mark)
        ids = self._store.memory().ids
        services = {number: name for name, number in ids.services.items()}
        backends = {number: key for key, number in ids.backends.items()}
        return Entry(services.get(service, ""), backends.get(backend, ""))

    def named_counts(self) -> dict[str, Count]:
        """What the data path counts as a whole, such as packets without a backend."""
        nftables = self._kernel.nftables
        return nftables.named_counts() if nftables.exists() else {}

    def _accepted(self, source: bytes) -> bool:
        """What was insisted on once is accepted: a reboot must restore it without asking."""
        return source == self._store.document()

    def _prepare(self, config: Config, force: bool) -> _Prepared:
        host = self._kernel.network.view(backend_addresses(config))
        reach = plan_reach(config, host, force=force)
        if reach.problems:
            raise ProblemsError(reach.problems)
        memory = self._store.memory()
        have = self._kernel.nftables.observe()
        known = merge_ids(memory.ids, recover_ids(have))
        renamed = renamed_services(config, known, have)
        ids = plan_ids(config, known, self._clock(), renamed)
        desired = plan_desired(config, host, reach, ids)
        tunnels = diff_tunnels(host.tunnels, desired.tunnels)
        self._require_kinds(config, tunnels)
        want = shape_ruleset(desired, have.maps if have else ())
        counts = self._kernel.nftables.counts() if have else {}
        owned, wanted = set(_owned(host)), set(desired.addresses)
        change = Change(
            transaction=diff_rulesets(have, want, counts),
            add=tuple(a for a in desired.addresses if a not in owned),
            remove=tuple(a for a in _owned(host) if a not in wanted),
            tunnels=tunnels,
            devices={**desired.tunnels.devices, **host.tunnels.devices},
        )
        past = _past(memory.past, config, known, want, counts)
        return _Prepared(change, Memory(ids, past), host)

    def _require_kinds(self, config: Config, change: TunnelChange) -> None:
        """Raises ProblemsError for tunnels whose devices this kernel cannot make."""
        if change.add:
            problems = missing_tunnels(config, self._kernel.tunnels.missing)
            if problems:
                raise ProblemsError(problems)

    def _remember(self, before: Memory, now: Memory) -> None:
        if now != before:
            self._store.save_memory(now)

    def _commit(self, change: Change, host: HostView) -> None:
        """Devices, addresses, rules: each is there before what sends packets to it."""
        added: list[OwnedAddress] = []
        if change.tunnels:
            self._kernel.tunnels.prepare(change.tunnels, host.tunnels)
        try:
            for address in change.add:
                self._kernel.network.add_address(address)
                added.append(address)
            self._kernel.nftables.run(change.transaction)
        except KernelError:
            for address in added:
                self._kernel.network.remove_address(address)
            if change.tunnels:
                self._kernel.tunnels.undo(change.tunnels, host.tunnels)
            raise

    def _remove(self, change: Change) -> None:
        """After the rules: while a VIP is still taken, its packets belong to them."""
        for address in change.remove:
            self._kernel.network.remove_address(address)
        if change.tunnels:
            self._kernel.tunnels.finish(change.tunnels)

    def _announce(self, prepared: _Prepared) -> None:
        """Only now: packets that come for a VIP must find the rules, not the host's own stack."""
        for owned in prepared.change.add:
            link = prepared.host.links[owned.interface]
            self._kernel.announcer.announce(owned.address, link)


def _owned(host: HostView) -> tuple[OwnedAddress, ...]:
    return tuple(
        OwnedAddress(held.address.ip, held.interface) for held in host.addresses if held.ours
    )


def _past(
    past: PastCounts, config: Config, known: Ids, want: Ruleset, counts: MapCounts
) -> dict[str, Mapping[str, Count]]:
    """The counts to remember: those that were, and those of elements that leave now.

    A service's total must not fall when one of its backends goes, or one IP version of it.
    """
    staying = {
        (kind, mark) for name in want.maps if (kind := _counts(name)) for mark in want.maps[name]
    }
    names = {number: name for name, number in known.services.items()}
    keys = {number: key for key, number in known.backends.items()}
    listed = {service.name for service in config.services}
    kept: dict[str, Mapping[str, Count]] = {
        service: counted for service, counted in past.items() if service in listed
    }
    for name, elements in counts.items():
        gone = {mark: n for mark, n in elements.items() if (_counts(name), mark) not in staying}
        for mark, count in counts_by_id({name: gone}).items():
            service, backend = split_id(mark)
            service_name, key = names.get(service, ""), keys.get(backend, "")
            if service_name in listed and key:
                totals = dict(kept.get(service_name, {}))
                totals[key] = totals.get(key, Count()) + count
                kept[service_name] = totals
    return kept


def _counts(name: str) -> Kind | None:
    """The kind of a map by its name, if it is one that counts."""
    parsed = MapName.parse(name)
    return parsed.kind if parsed is not None and parsed.kind.counts else None
