"""The data path by nftables: a table in the netdev family, and tunnel devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tula.dataplane.nft.build import build_ruleset
from tula.dataplane.nft.diff import diff_admission, diff_refusals, diff_rulesets
from tula.dataplane.nft.flow_keys import flow_key, flow_tables, fragment_key, fragment_tables
from tula.dataplane.nft.follow import follow_flow
from tula.dataplane.nft.ids import PROBE_MARK, Ids, split_id
from tula.dataplane.nft.incremental import rebuild_ruleset
from tula.dataplane.nft.lookup3 import slot_of
from tula.dataplane.nft.number import number_state, only_weights_moved, renumber_state
from tula.dataplane.nft.numbering import merge_ids, plan_ids, replan_tables
from tula.dataplane.nft.own_stack import Guarded, guarded
from tula.dataplane.nft.recover import recover_ids, renamed_services
from tula.dataplane.nft.retired import leaving_counts, leaving_marks, names_of
from tula.dataplane.nft.ruleset import FAMILY, TABLE, Key, MapName, Ruleset
from tula.dataplane.nft.schema import SCHEMA
from tula.dataplane.nft.tell_again import tells_again
from tula.dataplane.nft.transaction import ADMISSION, REFUSALS, Transaction, in_turn
from tula.dataplane.nft.tunnel_devices import Tunnels
from tula.dataplane.nft.tunnel_diff import diff_tunnels
from tula.dataplane.nft.tunnel_kinds import missing_tunnels
from tula.dataplane.port import (
    Followed,
    Memory,
    Observation,
    PathChange,
    Receipt,
    Revision,
)
from tula.kernel.clock import Clock, SystemClock
from tula.kernel.nft_clients import forget_clients, list_clients, look_up_client
from tula.kernel.nft_guard import Guard
from tula.kernel.nft_memory import dump_ids, recall_ids
from tula.kernel.nft_stats import count_by_name, read_stats
from tula.kernel.nft_values import (
    NftChange,
    NftObservation,
    NftReceipt,
    Target,
    ids_of,
    observation_of,
    receipt_of,
)
from tula.kernel.nftables import Nftables, next_generation
from tula.kernel.tunnels import TunnelAdapter
from tula.model.client_scopes import ClientScope, HeldClient, HeldClients
from tula.model.command import Command, command
from tula.model.config import Config, Forwarding, IPAddress
from tula.model.desired import DesiredState, SlotTable
from tula.model.errors import KernelError, StaleError
from tula.model.flow import Flow, FlowEntry
from tula.model.health import ProbeSocket
from tula.model.problem import Problem
from tula.model.stats import BackendKey, Count, Counted, Stats

FORM = SCHEMA
"""The number of the form of its tables."""


class NftDataPath:
    """See ``DataPath`` for what each method promises."""

    def __init__(
        self,
        nftables: Nftables,
        tunnels: TunnelAdapter,
        clock: Clock | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._nftables = nftables
        self._tunnels = tunnels
        self._clock = clock or SystemClock()
        self._guard = guard
        self._guarding = False

    def guard(self) -> None:
        self._guarding = self._guard is not None

    def dump(self, memory: Memory) -> dict[str, Any]:
        return dump_ids(ids_of(memory), self._clock)

    def recall(self, data: Mapping[str, Any]) -> Ids:
        return recall_ids(data, self._clock)

    def unsupported(self, config: Config, have: Observation | None = None) -> list[Problem]:
        if all(service.forwardings == {Forwarding.L2} for service in config.services):
            return []
        if have is not None and observation_of(have).tunnels.devices:
            return []
        return missing_tunnels(config, self._tunnels.missing)

    def observe(self) -> NftObservation:
        # Before all else: what changes from here on makes another revision.
        revision = self._nftables.generation()
        ruleset = self._nftables.observe()
        admitted, refusals = self._nftables.admitted(), self._nftables.refusals()
        return NftObservation(revision, ruleset, self._tunnels.observe(), admitted, refusals)

    def revision(self) -> Revision:
        return self._nftables.generation()

    def observe_presence(self) -> NftObservation:
        """Enough to remove all of it, also what a newer Tula made."""
        revision = self._nftables.generation()
        there = Ruleset() if self._nftables.exists() else None
        admitted, refusals = self._nftables.admitted(), self._nftables.refusals()
        return NftObservation(revision, there, self._tunnels.observe(), admitted, refusals)

    def removal(self, have: Observation) -> tuple[Command, ...]:
        found = observation_of(have)
        there = {
            f"{FAMILY} {TABLE}": found.ruleset is not None,
            f"inet {ADMISSION}": found.admitted is not None,
            f"inet {REFUSALS}": found.refusals is not None,
        }
        return (
            *(command(f"nft delete table {name}") for name, is_there in there.items() if is_there),
            *(Command(("ip", "link", "del", name)) for name in found.tunnels.devices),
        )

    def diff(
        self, have: Observation | Receipt, want: DesiredState | None, memory: Memory
    ) -> NftChange:
        if isinstance(have, NftReceipt):
            return _diff_target(have, want)
        found = observation_of(have)
        ids = ids_of(memory)
        if want is None:
            return NftChange(
                memory=ids,
                transaction=(
                    *diff_rulesets(found.ruleset, None),
                    *diff_admission(found.admitted, None),
                    *diff_refusals(found.refusals, answered=False),
                ),
                tunnels=diff_tunnels(found.tunnels, Tunnels()),
                had_tunnels=found.tunnels,
                known=merge_ids(ids, recover_ids(found.ruleset)),
                retired=found.counts,
            )
        known = merge_ids(ids, recover_ids(found.ruleset))
        renamed = renamed_services(want, known, found.ruleset)
        numbers = plan_ids(want, known, self._clock.boot(), renamed)
        numbered = number_state(want, numbers)
        built = build_ruleset(numbered, found.ruleset.maps if found.ruleset else ())
        return NftChange(
            memory=numbers,
            transaction=(
                *diff_admission(found.admitted, want.shared_with),
                *diff_refusals(found.refusals, answered=built.admission.resets),
                *diff_rulesets(found.ruleset, built.ruleset, found.counts),
            ),
            tunnels=diff_tunnels(found.tunnels, numbered.tunnels),
            had_tunnels=found.tunnels,
            target=Target(want, numbered, built, numbers),
            known=known,
            retired=leaving_counts(built.ruleset, found.counts),
        )

    def commit(self, change: PathChange, expected: Revision | None) -> NftReceipt:
        if not isinstance(change, NftChange):
            raise TypeError(f"a change of another data path: {change!r}")
        retired = change.retired
        if retired is None:
            leaving = leaving_marks(change.transaction)
            retired = {str(name): self._read_counts(name, m) for name, m in leaving.items()}
        changed, gone = in_turn(change.transaction)
        revision, own, warnings = expected, set[Revision](), list[str]()
        held = self._guard.held if self._guard is not None else None
        if change.target is not None:
            revision = self._bring_guard(change.target, revision, own, warnings)
        if change.tunnels:
            self._tunnels.prepare(change.tunnels, change.had_tunnels)
        try:
            if changed:
                revision = self._run(changed, revision, own)
        except KernelError:
            if change.tunnels:
                self._tunnels.undo(change.tunnels, change.had_tunnels)
            if self._guard is not None and self._guarding:
                with suppress(KernelError):
                    self._guard.bring(held or Guarded(), 0)
            raise
        # Done it is: what follows only cleans up, and who observes finds what is left.
        if gone:
            # No rule names it: what the kernel keeps of it, no packet sees.
            with suppress(KernelError):
                revision = self._run(gone, revision, own)
        if change.tunnels:
            try:
                self._tunnels.finish(change.tunnels)
            except KernelError as error:
                warnings.append(str(error))
        return NftReceipt(
            revision=revision,
            own=frozenset(own),
            memory=change.memory,
            retired=count_by_name(retired, change.known),
            warnings=tuple(warnings),
            target=change.target,
            tells_again=change.target is not None
            and tells_again(change.target.state.shared_with, change.transaction, change.tunnels),
        )

    def _run_any(
        self, transaction: Transaction, expected: Revision | None, own: set[Revision]
    ) -> Revision | None:
        """Like ``_run``, also when somebody else has changed something by now."""
        try:
            return self._run(transaction, expected, own)
        except StaleError:
            self._run(transaction, None, own)
            return None

    def _bring_guard(
        self,
        target: Target,
        expected: Revision | None,
        own: set[Revision],
        warnings: list[str],
    ) -> Revision | None:
        """Before the rules: they may be new to a table that is there, and not yet in force."""
        if self._guard is None or not self._guarding:
            return expected
        numbered = target.numbered
        there = (name for name in numbered.interfaces if name in numbered.links)
        interfaces = frozenset(numbered.links[name] for name in there)
        try:
            brought = self._guard.bring(guarded(target.built.ruleset, interfaces), expected or 0)
        except StaleError:
            raise
        except KernelError as error:
            # It keeps nothing from the services, but what somebody else may do to them.
            warnings.append(f"a flush of the ruleset would reset connections: {error}")
            return expected
        if not brought:
            return expected
        if expected is None:
            return None
        own.add(next_generation(expected))
        return next_generation(expected)

    def _read_counts(self, name: MapName, marks: list[int]) -> Mapping[Key, Count]:
        return dict(self._nftables.counts_of(name, marks).items())

    def _run(
        self, transaction: Transaction, expected: Revision | None, own: set[Revision]
    ) -> Revision | None:
        led_to = self._nftables.run(transaction, expected)
        if led_to is not None:
            own.add(led_to)
        return led_to

    def share_again(self, left: Receipt) -> NftReceipt:
        receipt = receipt_of(left)
        target = receipt.target
        if target is None or target.state.shared_with is None:
            return receipt
        own = set(receipt.own)
        revision = self._run_any(target.tell_again, receipt.revision, own)
        return replace(receipt, revision=revision, own=frozenset(own), tells_again=False)

    def drifted(self, left: Receipt, found: Observation) -> bool:
        target, now = receipt_of(left).target, observation_of(found)
        if target is None:
            return now.present
        devices = diff_tunnels(now.tunnels, target.numbered.tunnels)
        admission = diff_admission(now.admitted, target.state.shared_with)
        refusals = diff_refusals(now.refusals, answered=target.built.admission.resets)
        differ = bool(devices or admission or refusals)
        return differ or now.ruleset != target.built.ruleset

    def stats(self, memory: Memory) -> Stats:
        return read_stats(self._nftables, ids_of(memory))

    def connections(
        self, memory: Memory, limit: float, empty: Collection[BackendKey] = ()
    ) -> Mapping[BackendKey, int] | None:
        if not self._nftables.exists():
            return {}
        ids = ids_of(memory)
        marks = {ids.mark(*key): key for key in empty if ids.knows(*key)}
        held = self._nftables.connections(limit, marks)
        if held is None:
            return None
        names = names_of(held.counts, ids)
        counts = {names[mark]: number for mark, number in held.counts.items() if mark in names}
        return Counted(counts, held.estimated, (marks[mark] for mark in held.empty))

    def look_up(self, flow: Flow, memory: Memory, datagram: int | None = None) -> FlowEntry | None:
        present = self._nftables.entries() if self._nftables.exists() else {}
        if datagram is None:
            tables, key = flow_tables(flow, present), flow_key(flow)
        else:
            tables, key = fragment_tables(flow, present), fragment_key(flow, datagram)
        marks = (self._nftables.mark_of(table, key) for table in tables)
        mark = next((mark for mark in marks if mark is not None), None)
        if mark is None:
            return None
        ids, (service, backend) = ids_of(memory), split_id(mark)
        services = {number: name for name, number in ids.services.items()}
        backends = {number: key for key, number in ids.backends.items()}
        return FlowEntry(services.get(service, ""), backends.get(backend, ""))

    def clients(self, scopes: Sequence[ClientScope], memory: Memory, limit: int) -> HeldClients:
        return list_clients(self._nftables, scopes, ids_of(memory), limit)

    def forget_clients(
        self,
        scopes: Sequence[ClientScope],
        client: IPAddress | None,
        memory: Memory,  # noqa: ARG002
    ) -> int | None:
        return forget_clients(self._nftables, scopes, client)

    def look_up_client(
        self, scope: ClientScope, client: IPAddress, memory: Memory
    ) -> HeldClient | None:
        return look_up_client(self._nftables, scope, client, ids_of(memory))

    def follow(
        self, have: Observation, change: PathChange, flow: Flow, entry: FlowEntry | None
    ) -> Followed:
        if not isinstance(change, NftChange) or change.target is None:
            raise TypeError(f"no change of this data path to a state: {change!r}")
        ruleset = observation_of(have).ruleset
        return follow_flow(ruleset, change.target.built, change.memory, flow, entry)

    def choose(self, table: SlotTable, flow: Flow, seed: int, *, by_client: bool) -> int:
        port = None if by_client else flow.client_port
        return slot_of(flow.client, port, seed, len(table.slots))

    def probe_socket(self, service: str, backend: str, memory: Memory) -> ProbeSocket:
        return ProbeSocket(PROBE_MARK, ids_of(memory).mark(service, backend))


def _diff_target(have: NftReceipt, want: DesiredState | None) -> NftChange:
    """From what this process left: only tables and elements can differ."""
    target = have.target
    if target is None or want is None or not only_weights_moved(target.state, want):
        raise StaleError
    ids = replan_tables(target.ids, want.services)
    numbered = renumber_state(target.numbered, target.state, want, ids)
    built = rebuild_ruleset(target.built, numbered)
    return NftChange(
        memory=ids,
        transaction=diff_rulesets(target.built.ruleset, built.ruleset),
        target=Target(want, numbered, built, ids),
        known=ids,
    )
