"""A stateful fake of the kernel, for tests: it refuses what the kernel refuses.

All or nothing like the kernel: a refused step leaves the table as it was before the transaction.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from itertools import takewhile

from tula.dataplane.nft.ruleset import Chain, Elements, Key, MapName, Ruleset
from tula.dataplane.nft.schema import is_schema, readable_kind
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteTable,
    FlushChain,
    FlushMap,
    Step,
    Transaction,
)
from tula.dataplane.nft.tunnel_devices import Tunnels, VxlanNeighbour, VxlanPeer
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.kernel.events import Events
from tula.kernel.nftables import require_known_schema
from tula.model.config import IPAddress
from tula.model.errors import KernelError, StaleError
from tula.model.host import HostAddress, HostView, Link, OwnedAddress, Route
from tula.model.stats import Count


@dataclass
class FakeNftables:
    """The table as values; ``transactions`` remembers what was run, ``refuse`` makes run fail."""

    table: Ruleset | None = None
    transactions: list[Transaction] = field(default_factory=list)
    refuse: str = ""
    flows: dict[tuple[str, bytes], int] = field(default_factory=dict)
    element_counts: dict[str, dict[Key, Count]] = field(default_factory=dict)
    commits: int = 1
    """The generation; tests raise it to be someone else who changes nftables."""

    def meddle(self, table: Ruleset | None) -> None:
        """Somebody else makes the table this; None deletes it."""
        self.table = table
        self.element_counts = {}
        self.commits += 1

    def exists(self) -> bool:
        return self.table is not None

    def observe(self) -> Ruleset | None:
        if self.table is not None:
            require_known_schema(self.table.counters)
        return self.table

    def counts(self) -> dict[str, dict[Key, Count]]:
        if self.table is None:
            return {}
        require_known_schema(self.table.counters)
        return {
            name: {key: self.element_counts.get(name, {}).get(key, Count()) for key in elements}
            for name, elements in self.table.maps.items()
            if (kind := readable_kind(name)) is not None and kind.counts
        }

    def counts_of(self, name: MapName, marks: Sequence[int]) -> dict[int, Count]:
        there = self.table.maps.get(str(name), {}) if self.table else {}
        counted = self.element_counts.get(str(name), {})
        return {mark: counted.get(mark, Count()) for mark in takewhile(there.__contains__, marks)}

    def named_counts(self) -> dict[str, Count]:
        counters = self.table.counters if self.table else ()
        return {name: Count() for name in counters if not is_schema(name)}

    def entries(self) -> dict[str, int | None]:
        maps = self.table.maps if self.table else {}
        return {name: len(elements) for name, elements in maps.items()}

    def held(self, limit_seconds: float) -> dict[int, int] | None:
        if limit_seconds <= 0:
            return None
        kinds = ((MapName.parse(name), mark) for (name, _), mark in self.flows.items())
        return dict(Counter(mark for name, mark in kinds if name is not None and name.kind.flows))

    def mark_of(self, name: MapName, key: bytes) -> int | None:
        return self.flows.get((str(name), key))

    def generation(self) -> int:
        return self.commits

    def run(self, transaction: Transaction, generation: int | None = None) -> int | None:
        if transaction and generation is not None and generation != self.commits:
            raise StaleError
        if self.refuse:
            raise KernelError(self.refuse)
        work = _Work(self.table, self.element_counts)
        for step in transaction:
            work.take(step)
        self.table = work.result()
        self.element_counts = work.counts
        self.transactions.append(transaction)
        self.commits += bool(transaction)
        return self.commits


@dataclass
class FakeNetwork:
    """Links, addresses and routes as values; ``refuse`` makes an interface take no address."""

    host: HostView
    refuse: set[str] = field(default_factory=set)
    resolved: set[tuple[int, IPAddress]] = field(default_factory=set)

    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        routes = {to: self.host.routes.get(to, Route("none")) for to in destinations}
        return replace(self.host, routes=routes)

    def add_address(self, owned: OwnedAddress) -> None:
        if owned.interface not in self.host.links:
            raise KernelError(f"cannot add {owned.address} on {owned.interface}: No such device")
        if owned.interface in self.refuse:
            raise KernelError(f"cannot add {owned.address} on {owned.interface}: Permission denied")
        added = HostAddress(owned.interface, ip_interface(owned.address), ours=True)
        if added not in self.host.addresses:
            self.host = replace(self.host, addresses=(*self.host.addresses, added))

    def resolve(self, neighbours: Iterable[tuple[int, IPAddress]]) -> None:
        self.resolved.update(neighbours)

    def remove_address(self, owned: OwnedAddress) -> None:
        gone = HostAddress(owned.interface, ip_interface(owned.address), ours=True)
        kept = tuple(held for held in self.host.addresses if held != gone)
        self.host = replace(self.host, addresses=kept)


@dataclass
class FakeTunnels:
    """Tunnels as values, and as links of a ``FakeNetwork``; ``refuse`` names kinds it has not."""

    network: FakeNetwork
    refuse: set[str] = field(default_factory=set)
    tunnels: Tunnels = field(default_factory=Tunnels)

    def observe(self) -> Tunnels:
        return self.tunnels

    def missing(self, kinds: Iterable[str]) -> set[str]:
        return self.refuse & set(kinds)

    def prepare(self, change: TunnelChange, have: Tunnels) -> None:  # noqa: ARG002
        for device in change.add:
            if device.kind in self.refuse:
                raise KernelError(f"this kernel has no {device.kind} devices")
            if device.name in self.network.host.links and device.name not in change.first:
                raise KernelError(f"cannot make {device.name}: File exists")
        self._set(change.first, (), ())
        now = self.tunnels
        devices = {**now.devices, **{device.name: device for device in change.add}}
        peers, neighbours = now.peers | set(change.add_peers), set(change.add_neighbours)
        replaced = {(n.device, n.hop) for n in neighbours}
        kept = {n for n in now.neighbours if (n.device, n.hop) not in replaced}
        self._become(Tunnels(devices, peers, frozenset(kept | neighbours)))

    def undo(self, change: TunnelChange, have: Tunnels) -> None:  # noqa: ARG002
        self._become(have)

    def finish(self, change: TunnelChange) -> None:
        self._set(change.remove, change.remove_peers, change.remove_neighbours)

    def _set(
        self,
        names: Iterable[str],
        peers: Iterable[VxlanPeer],
        neighbours: Iterable[VxlanNeighbour],
    ) -> None:
        now, gone = self.tunnels, set(names)
        self._become(
            Tunnels(
                {name: device for name, device in now.devices.items() if name not in gone},
                frozenset(p for p in now.peers - set(peers) if p.device not in gone),
                frozenset(n for n in now.neighbours - set(neighbours) if n.device not in gone),
            )
        )

    def _become(self, tunnels: Tunnels) -> None:
        host = self.network.host
        links = {n: link for n, link in host.links.items() if n not in self.tunnels.devices}
        devices = {n: Link(n, d.index) for n, d in tunnels.devices.items() if d is not None}
        self.tunnels = tunnels
        self.network.host = replace(host, links=links | devices)


@dataclass
class FakeAnnouncer:
    """Remembers what was announced, and on which interface."""

    announced: list[OwnedAddress] = field(default_factory=list)

    def announce(self, vip: IPAddress, link: Link) -> None:
        self.announced.append(OwnedAddress(vip, link.name))


class FakeEvents:
    """Events that a test lets happen; the file descriptor becomes readable as the kernel's do."""

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._waiting: list[Events] = []

    def __del__(self) -> None:
        os.close(self._bell)

    def happen(self, *, network: bool = False, generation: int = 0, lost: bool = False) -> None:
        """One event, which the next ``drain`` tells with the others."""
        self._waiting.append(Events(network, (generation,) if generation else (), lost))
        os.eventfd_write(self._bell, 1)

    def filenos(self) -> tuple[int, ...]:
        return (self._bell,)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def drain(self) -> Events:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        waiting, self._waiting = self._waiting, []
        return Events(
            network=any(events.network for events in waiting),
            generations=tuple(g for events in waiting for g in events.generations),
            lost=any(events.lost for events in waiting),
        )


class _Work:
    """A copy of the table that steps are tried on."""

    def __init__(
        self,
        table: Ruleset | None,
        counts: dict[str, dict[Key, Count]],
    ) -> None:
        self.there = table is not None
        self.counts = {name: dict(values) for name, values in counts.items()}
        self.maps: dict[str, Elements] = dict(table.maps) if table else {}
        self.chains: dict[str, Chain] = dict(table.chains) if table else {}
        self.counters: set[str] = set(table.counters) if table else set()

    def result(self) -> Ruleset | None:
        if not self.there:
            return None
        return Ruleset(dict(self.maps), dict(self.chains), frozenset(self.counters))

    def take(self, step: Step) -> None:
        """One step, or KernelError with the kernel's reason."""
        if isinstance(step, AddTable):
            self.there = True
            return
        self._need(self.there, "table")
        match step:
            case DeleteTable():
                self.there = False
                self.maps, self.chains, self.counters = {}, {}, set()
            case AddCounter(name):
                self.counters.add(name)
            case DeleteCounter(name):
                self._need(name in self.counters, name)
                self._free(name, f"counter name {name} ")
                self.counters.discard(name)
            case AddMap(name):
                self.maps.setdefault(str(name), {})
            case DeleteMap(map_name):
                self._need(map_name in self.maps, map_name)
                self._free(map_name, f"@{map_name} ")
                del self.maps[map_name]
                self.counts.pop(map_name, None)
            case FlushMap(name):
                self._need(str(name) in self.maps, str(name))
                self.maps[str(name)] = {}
            case AddElements() | DeleteElements():
                self._change_elements(step)
            case _:
                self._take_chain(step)

    def _take_chain(self, step: Step) -> None:
        match step:
            case AddChain(name, device):
                held = self.chains.setdefault(name, Chain((), device))
                if held.device != device:
                    raise KernelError(f"{name}: File exists")
            case FlushChain(name):
                self._need(name in self.chains, name)
                self.chains[name] = Chain((), self.chains[name].device)
            case DeleteChain(name):
                self._need(name in self.chains, name)
                if self.chains[name].rules or any(
                    value == name for elements in self.maps.values() for value in elements.values()
                ):
                    raise KernelError(f"{name}: Device or resource busy")
                del self.chains[name]
            case AddRules(name, rules):
                self._need(name in self.chains, name)
                for rule in rules:
                    self._check_names(rule.text)
                chain = self.chains[name]
                self.chains[name] = Chain(chain.rules + rules, chain.device)
            case _:
                raise AssertionError(step)

    def _change_elements(self, step: AddElements | DeleteElements) -> None:
        name = str(step.name)
        self._need(name in self.maps, name)
        elements = dict(self.maps[name])
        counts = self.counts.setdefault(name, {})
        if isinstance(step, DeleteElements):
            for key in step.keys:
                self._need(key in elements, f"element of {name}")
                del elements[key]
                counts.pop(key, None)
        else:
            for key, value in step.elements.items():
                if elements.get(key, value) != value:
                    raise KernelError(f"element of {name}: File exists")
                if isinstance(value, str):
                    self._need(value in self.chains, value)
                elements[key] = value
                if key in step.counts:
                    counts[key] = step.counts[key]
            if step.name.size and len(elements) > step.name.size:
                raise KernelError(f"{name}: Too many open files in system")
        self.maps[name] = elements

    def _check_names(self, rule: str) -> None:
        for word in rule.split():
            if word.startswith("@") and not word.startswith(("@nh,", "@th,")):
                self._need(word[1:] in self.maps, word)

    def _free(self, name: str, used_as: str) -> None:
        """Raises if a rule names it."""
        for chain in self.chains.values():
            if any(used_as in f"{rule.text} " for rule in chain.rules):
                raise KernelError(f"{name}: Device or resource busy")

    @staticmethod
    def _need(condition: bool, what: str) -> None:
        if not condition:
            raise KernelError(f"{what}: No such file or directory")
