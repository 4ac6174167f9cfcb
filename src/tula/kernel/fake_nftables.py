"""A stateful fake of Tula's table, for tests: it refuses what the kernel refuses.

All or nothing like the kernel: a refused step leaves the table as it was before the transaction.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile

from tula.dataplane.nft.codec import RawElement
from tula.dataplane.nft.ruleset import Chain, Elements, Foreign, Key, MapName, Ruleset
from tula.dataplane.nft.schema import is_schema, readable_kind
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    Admit,
    AdmitNobody,
    AnswerNobody,
    AnswerRefused,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteObject,
    DeleteTable,
    FlushChain,
    FlushMap,
    ForgetEntry,
    Step,
    Transaction,
    WakeTable,
)
from tula.kernel.failures import Failures, fallible
from tula.kernel.nft_counts import HeldConnections
from tula.kernel.nft_table import require_known_schema
from tula.model.errors import KernelError, StaleError
from tula.model.stats import Count


@dataclass
class FakeNftables:
    """The table as values; ``transactions`` remembers what was run."""

    table: Ruleset | None = None
    transactions: list[Transaction] = field(default_factory=list)
    flows: dict[tuple[str, bytes], int] = field(default_factory=dict)
    element_counts: dict[str, dict[Key, Count]] = field(default_factory=dict)
    admission: tuple[str, ...] | None = None
    """The digests of the rules of the table ADMISSION."""
    refused: tuple[str, ...] | None = None
    """Those of REFUSALS."""
    commits: int = 1
    """The generation; tests raise it to be someone else who changes nftables."""
    failures: Failures = field(default_factory=Failures)

    @property
    def refuse(self) -> str:
        """Why every ``run`` fails; empty if it does not."""
        return self.failures.reason("nftables.run")

    @refuse.setter
    def refuse(self, reason: str) -> None:
        if reason:
            self.failures.refuse("nftables.run", reason)
        else:
            self.failures.allow("nftables.run")

    def meddle(self, table: Ruleset | None) -> None:
        """Somebody else makes the table this; None deletes it."""
        self.table = table
        self.element_counts = {}
        self.commits += 1

    @fallible("nftables.exists")
    def exists(self) -> bool:
        return self.table is not None

    @fallible("nftables.observe")
    def observe(self) -> Ruleset | None:
        return replace(self.table, counts=self._counts()) if self.table is not None else None

    @fallible("nftables.counts")
    def counts(self) -> dict[str, dict[Key, Count]]:
        return self._counts()

    def _counts(self) -> dict[str, dict[Key, Count]]:
        if self.table is None:
            return {}
        require_known_schema(self.table.counters)
        return {
            name: {key: self.element_counts.get(name, {}).get(key, Count()) for key in elements}
            for name, elements in self.table.maps.items()
            if (kind := readable_kind(name)) is not None and kind.counts
        }

    @fallible("nftables.counts_of")
    def counts_of(self, name: MapName, marks: Sequence[int]) -> dict[int, Count]:
        there = self.table.maps.get(str(name), {}) if self.table else {}
        counted = self.element_counts.get(str(name), {})
        return {mark: counted.get(mark, Count()) for mark in takewhile(there.__contains__, marks)}

    @fallible("nftables.admitted")
    def admitted(self) -> tuple[str, ...] | None:
        return self.admission

    @fallible("nftables.refusals")
    def refusals(self) -> tuple[str, ...] | None:
        return self.refused

    @fallible("nftables.named_counts")
    def named_counts(self) -> dict[str, Count]:
        counters = self.table.counters if self.table else ()
        return {name: Count() for name in counters if not is_schema(name)}

    @fallible("nftables.entries")
    def entries(self) -> dict[str, int | None]:
        maps = self.table.maps if self.table else {}
        filled = Counter(name for name, _ in self.flows)
        return {name: len(elements) + filled[name] for name, elements in maps.items()}

    @fallible("nftables.connections")
    def connections(
        self,
        limit_seconds: float,
        empty: Collection[int] = (),  # noqa: ARG002
    ) -> HeldConnections | None:
        """Never an estimate."""
        if limit_seconds <= 0:
            return None
        kinds = ((MapName.parse(name), mark) for (name, _), mark in self.flows.items())
        held = (mark for name, mark in kinds if name is not None and name.kind.flows)
        return HeldConnections(dict(Counter(held)))

    @fallible("nftables.mark_of")
    def mark_of(self, name: MapName, key: bytes) -> int | None:
        return self.flows.get((str(name), key))

    @fallible("nftables.entry_of")
    def entry_of(self, name: MapName, key: bytes) -> RawElement | None:
        mark = self.flows.get((str(name), key))
        return None if mark is None else RawElement(key, mark.to_bytes(4, sys.byteorder))

    @fallible("nftables.entries_of")
    def entries_of(self, name: MapName, limit: int) -> list[RawElement]:
        keys = [key for where, key in self.flows if where == str(name)]
        found = (self.entry_of(name, key) for key in keys[:limit])
        return [entry for entry in found if entry is not None]

    @fallible("nftables.generation")
    def generation(self) -> int:
        return self.commits

    @fallible("nftables.run")
    def run(self, transaction: Transaction, generation: int | None = None) -> int | None:
        if transaction and generation is not None and generation != self.commits:
            raise StaleError
        work = _Work(self.table, self.element_counts)
        admission, refused = self.admission, self.refused
        forgotten = dict(self.flows)
        for step in transaction:
            match step:
                case Admit(rules):
                    admission = tuple(rule.digest for rule in rules)
                case AdmitNobody():
                    if admission is None:
                        raise KernelError("tula_sync: No such file or directory")
                    admission = None
                case ForgetEntry(name, key):
                    if forgotten.pop((str(name), key), None) is None:
                        raise KernelError(f"element of {name}: No such file or directory")
                case AnswerRefused(rules):
                    refused = tuple(rule.digest for rule in rules)
                case AnswerNobody():
                    if refused is None:
                        raise KernelError("tula_refuse: No such file or directory")
                    refused = None
                case _:
                    if isinstance(step, FlushMap | DeleteMap):
                        gone = str(step.name)
                        forgotten = {k: m for k, m in forgotten.items() if k[0] != gone}
                    work.take(step)
        self.table, self.admission, self.flows = work.result(), admission, forgotten
        self.refused = refused
        self.element_counts = work.counts
        self.transactions.append(transaction)
        self.commits += bool(transaction)
        return self.commits


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
        self.foreign = table.foreign if table else Foreign()

    def result(self) -> Ruleset | None:
        if not self.there:
            return None
        counters = frozenset(self.counters)
        return Ruleset(dict(self.maps), dict(self.chains), counters, self.foreign)

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
                self.foreign = Foreign()
            case WakeTable():
                self.foreign = replace(self.foreign, dormant=False)
            case AddCounter(name):
                self.counters.add(name)
            case DeleteCounter(name):
                self._need(name in self.counters, name)
                self._free(name, f"counter name {name} ")
                self.counters.discard(name)
            case DeleteObject(number, name):
                self._need((number, name) in self.foreign.objects, name)
                objects = self.foreign.objects - {(number, name)}
                self.foreign = replace(self.foreign, objects=objects)
            case AddMap(name):
                if str(name) in self.foreign.maps:
                    raise KernelError(f"{name}: File exists")
                self.maps.setdefault(str(name), {})
            case DeleteMap(map_name):
                self._delete_map(map_name)
            case FlushMap(name):
                self._need(str(name) in self.maps, str(name))
                self.maps[str(name)] = {}
                self._all_readable(str(name))
            case AddElements() | DeleteElements():
                self._change_elements(step)
            case _:
                self._take_chain(step)

    def _take_chain(self, step: Step) -> None:
        match step:
            case AddChain(name, device):
                held = self.chains.setdefault(name, Chain((), device))
                if (held.device, held.foreign) != (device, ""):
                    raise KernelError(f"{name}: File exists")
            case FlushChain(name):
                self._need(name in self.chains, name)
                self.chains[name] = replace(self.chains[name], rules=())
            case DeleteChain(name):
                self._need(name in self.chains, name)
                self._require_unused_chain(name)
                del self.chains[name]
            case AddRules(name, rules):
                self._need(name in self.chains, name)
                for rule in rules:
                    self._check_names(rule.text)
                chain = self.chains[name]
                self.chains[name] = replace(chain, rules=chain.rules + rules)
            case _:
                raise AssertionError(step)

    def _delete_map(self, name: str) -> None:
        self._need(name in self.maps or name in self.foreign.maps, name)
        self._free(name, f"@{name} ")
        self.maps.pop(name, None)
        self.counts.pop(name, None)
        self.foreign = replace(self.foreign, maps=self.foreign.maps - {name})
        self._all_readable(name)

    def _all_readable(self, name: str) -> None:
        self.foreign = replace(self.foreign, elements=self.foreign.elements - {name})

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
                    self._require_target(value)
                elements[key] = value
                if key in step.counts:
                    counts[key] = step.counts[key]
            if step.name.size and len(elements) > step.name.size:
                raise KernelError(f"{name}: Too many open files in system")
        self.maps[name] = elements

    def _check_names(self, rule: str) -> None:
        words = rule.split()
        for word in words:
            if word.startswith("@") and not word.startswith(("@ll,", "@nh,", "@th,")):
                self._need(word[1:] in self.maps, word)
        for name in _targets(rule):
            self._require_target(name)
        for (first, second), name in zip(pairwise(words), words[2:], strict=False):
            if (first, second) == ("counter", "name"):
                self._need(name in self.counters, name)

    def _require_target(self, name: str) -> None:
        """Raises unless a rule or an element may lead to the chain: to no base chain."""
        self._need(name in self.chains, name)
        if self.chains[name].device:
            raise KernelError(f"{name}: Operation not supported")

    def _require_unused_chain(self, name: str) -> None:
        rules = [rule.text for chain in self.chains.values() for rule in chain.rules]
        values = (value for elements in self.maps.values() for value in elements.values())
        if self.chains[name].rules or name in values or any(name in _targets(r) for r in rules):
            raise KernelError(f"{name}: Device or resource busy")

    def _free(self, name: str, used_as: str) -> None:
        """Raises if a rule names it."""
        for chain in self.chains.values():
            if any(used_as in f"{rule.text} " for rule in chain.rules):
                raise KernelError(f"{name}: Device or resource busy")

    @staticmethod
    def _need(condition: bool, what: str) -> None:
        if not condition:
            raise KernelError(f"{what}: No such file or directory")


def _targets(rule: str) -> Iterator[str]:
    """The chains that a rule names."""
    return (name for verdict, name in pairwise(rule.split()) if verdict in ("jump", "goto"))
