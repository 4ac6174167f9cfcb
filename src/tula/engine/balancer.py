"""One machine's balancer: brings kernel and addresses to a document, and tells how they stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from tula.dataplane.nft.adjust import adjust_shape
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.recover import recover_ids, renamed_services
from tula.dataplane.nft.ruleset import Key, Ruleset
from tula.dataplane.nft.shape import shape
from tula.dataplane.nft.transaction import Transaction, in_turn
from tula.dataplane.tunnels import TunnelChange, diff_tunnels
from tula.engine.change import Applied, Change, Prepared, Repair, has_drifted, owned_addresses
from tula.engine.committer import Committer
from tula.engine.host_settings import HostSettings
from tula.engine.overrides import changed_overrides
from tula.engine.past import add_counts, counting, leaving_marks, past_counts
from tula.engine.reader import Adapters, Reader
from tula.engine.store import Memory, Store
from tula.model.config import Config, Forwarding
from tula.model.count import Count
from tula.model.errors import KernelError, StaleError, StateError
from tula.model.health import BackendName, Override, Standing
from tula.model.host import HostView
from tula.model.ids import Ids, backend_id
from tula.model.problem import Problem, ProblemsError
from tula.model.tunnel import Tunnels
from tula.plan.adjust import adjust_plan, keep_plan
from tula.plan.desired import plan_desired
from tula.plan.ids import merge_ids, plan_ids
from tula.plan.probes import probe_destinations
from tula.plan.reach import backend_addresses, plan_reach
from tula.plan.standing import (
    NO_SHARES,
    Shares,
    absent_backends,
    away_standings,
    effective_config,
    plan_standings,
)
from tula.plan.tunnel_kinds import missing_tunnels
from tula.plan.usable import unreached_backends, usable_config

StandingsOf = Mapping[BackendName, Standing]


class Balancer(Reader):
    """Composes plan, data path and kernel for one network namespace and one state directory.

    Methods raise ProblemsError for a document that does not fit this machine, KernelError and
    StateError for what failed; in each case what was there before is there still.
    """

    def __init__(
        self, kernel: Adapters, store: Store, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` tells seconds since the epoch."""
        super().__init__(kernel, store)
        self._store = store
        self._committer = Committer(kernel)
        self._clock = clock
        self.applied: Applied | None = None
        """What the last change of this process left; None when that is not known."""
        self.unsaved = ""
        """Why the disk did not take what must be remembered; it is tried again."""
        self._unsaved: Memory | None = None
        self.remembered = Memory()
        """The memory that was read or saved last."""

    def plan(
        self,
        config: Config,
        source: bytes,
        *,
        force: bool = False,
        standings: StandingsOf | None = None,
    ) -> Change:
        """What ``apply`` would do; changes nothing."""
        if standings is None:
            standings = self.without_monitors(config)
        return self._prepare(config, standings, force or self._accepted(source)).change

    def without_monitors(self, config: Config) -> StandingsOf:
        """How backends count where nothing is known but what the operator said."""
        return plan_standings(config, {}, self._store.overrides(), self._clock()).of

    def apply(
        self,
        config: Config,
        source: bytes,
        *,
        force: bool = False,
        standings: StandingsOf | None = None,
        shares: Shares = NO_SHARES,
    ) -> Change:
        """Brings the kernel to the document in one step, and returns what was done."""
        with self._store.locked():
            if standings is None:
                standings = self.without_monitors(config)
            prepared = self._prepare(config, standings, force or self._accepted(source), shares)
            before = self._memory()
            # Ids first, so that a full disk is found before the kernel is changed. Counts last:
            # an element that is still there must not count twice.
            early = Memory(prepared.memory.ids, before.past)
            self._remember(before, early)
            try:
                accept = self._store.prepare_document(source)
                self._committer.commit(
                    prepared.change, prepared.applied.host, fresh=prepared.have is None
                )
            except (KernelError, StateError):
                # The old document goes on, and its counts are found by the old ids.
                self._try_remember(early, before)
                raise
            accept()
            # Accepted it is, in the kernel and on the disk: what is left are counts.
            self._try_remember(early, prepared.memory)
            self._finish(prepared)
        return prepared.change

    def reconcile(
        self, config: Config, standings: StandingsOf, shares: Shares = NO_SHARES
    ) -> Repair:
        """Brings the kernel back to an accepted document, as far as this machine can.

        What the disk does not take is told, and keeps nothing from the kernel.
        """
        with self._store.locked():
            return self._reconcile(config, standings, shares)

    def override(
        self, config: Config, name: BackendName, change: Callable[[Override], Override]
    ) -> Repair:
        """Without a daemon: changes what the operator says of a backend of the applied document,
        and brings the kernel to it. When that fails, it is not said."""
        with self._store.locked():
            if self._store.has_daemon():
                raise StateError(f"{self._store.directory}: a daemon starts or ends; try again")
            before = self._store.overrides()
            self._store.save_overrides(changed_overrides(before, name, change))
            try:
                return self._reconcile(config, self.without_monitors(config))
            except (KernelError, StateError, ProblemsError):
                self._store.save_overrides(before)
                raise

    def _reconcile(
        self, config: Config, standings: StandingsOf, shares: Shares = NO_SHARES
    ) -> Repair:
        left, self.applied = self.applied, None
        prepared = self._prepare(config, standings, True, shares, lenient=True)
        before = self._memory()
        early = Memory(prepared.memory.ids, before.past)
        self._try_remember(before, early)
        prepared = self._committer.commit_what_can_be(prepared)
        committed = time.monotonic()
        self._try_remember(early, prepared.memory)
        self._finish(prepared)
        drifted = left is not None and has_drifted(left, prepared)
        return Repair(prepared.change, prepared.problems, self.unsaved, drifted, committed)

    def adjust(self, standings: StandingsOf, shares: Shares = NO_SHARES) -> Repair:
        """Brings other standings of the applied document's backends to the kernel, and no more.

        Nothing is read before it: raises StaleError when somebody else has changed the rules
        since, and KernelError; then only ``reconcile`` helps.
        """
        # An nft that outlives this process keeps the lock: nobody may compare before its end.
        with self._locked_if_possible():
            return self._adjust(standings, shares)

    def _adjust(self, standings: StandingsOf, shares: Shares) -> Repair:
        applied = self.applied
        if applied is None:
            raise StaleError
        self.applied = None
        planned = adjust_plan(applied.planned, standings, shares)
        shaped = adjust_shape(applied.shaped, planned.state)
        change = Change(transaction=diff_rulesets(applied.shaped.ruleset, shaped.ruleset))
        leaving = self._leaving(change.transaction)
        changed, gone = in_turn(change.transaction)
        self._kernel.nftables.run(changed, applied.generation)
        if gone:
            self._committer.drop(gone)
        ids = planned.ids
        self.applied = replace(
            applied,
            ids=ids,
            planned=planned,
            shaped=shaped,
            # Not asked for: were it more by now, somebody else would have changed something.
            generations=next_generations(applied.generation, change.transaction),
        )
        committed = time.monotonic()
        if leaving or ids != applied.ids or self.unsaved:
            self._remember_adjusted(applied, ids, leaving)
        return Repair(change, (), self.unsaved, committed=committed)

    def _remember_adjusted(
        self, applied: Applied, ids: Ids, leaving: Mapping[str, Mapping[Key, Count]]
    ) -> None:
        try:
            before = self._memory()
        except StateError as error:
            self.unsaved = str(error)
            return
        past = add_counts(before.past, applied.config, ids, leaving)
        self._try_remember(before, Memory(ids, past))

    @contextmanager
    def _locked_if_possible(self) -> Iterator[None]:
        """Health must reach the kernel though the state directory is gone."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._store.locked())
            except StateError as error:
                self.unsaved = str(error)
            yield

    def missing(self, config: Config) -> frozenset[BackendName]:
        """The backends of services with monitors that the kernel was left without: they were
        down when the daemon before ended. None if there is no table."""
        have = self._kernel.nftables.observe()
        if have is None:
            return frozenset()
        ids = merge_ids(self._memory().ids, recover_ids(have))
        there = {key for name, marks in have.maps.items() if counting(name) for key in marks}
        return frozenset(
            (service.name, backend.name)
            for service in config.services
            if service.health and service.name in ids.services
            for backend in service.backends
            if backend.key in ids.backends
            and backend_id(ids.services[service.name], ids.backends[backend.key]) not in there
        )

    def _leaving(self, transaction: Transaction) -> dict[str, dict[Key, Count]]:
        """What the elements counted that are about to go."""
        found: dict[str, dict[Key, Count]] = {}
        for name, marks in leaving_marks(transaction).items():
            counts = self._kernel.nftables.counts_of(name, marks)
            found[str(name)] = {mark: count for mark, count in counts.items() if count.packets}
        return {name: counts for name, counts in found.items() if counts}

    def _finish(self, prepared: Prepared) -> None:
        self._committer.announce(prepared)
        self._committer.remove(prepared.change)
        generation = self._kernel.nftables.generation()
        on_the_way = (_before(generation),) if in_turn(prepared.change.transaction)[1] else ()
        self.applied = replace(prepared.applied, generations=(*on_the_way, generation))

    def clear(self) -> Change:
        """Takes everything back that Tula made; the ids stay in memory, the document aside.

        What the operator said of backends is forgotten.
        """
        with self._store.locked():
            host = self._kernel.network.view(())
            table = Ruleset() if self._kernel.nftables.exists() else None
            change = Change(
                transaction=diff_rulesets(table, None),
                remove=owned_addresses(host),
                tunnels=diff_tunnels(host.tunnels, Tunnels()),
                devices=host.tunnels.devices,
            )
            self._committer.commit(change, host)
            self._committer.remove(change)
            self._store.clear_document()
            self._store.save_memory(Memory(ids=self._memory().ids))
            self._unsaved, self.unsaved = None, ""
            if self._store.overrides():
                self._store.save_overrides({})
            settings = HostSettings(self._kernel.probe_route, self._kernel.sysctls, self._store)
            problems = settings.remove()
        if problems:
            raise KernelError("; ".join(problems))
        return change

    def _accepted(self, source: bytes) -> bool:
        """What was insisted on once is accepted: a reboot must restore it without asking."""
        return source == self._store.document()

    def _prepare(
        self,
        config: Config,
        standings: StandingsOf,
        force: bool,
        shares: Shares = NO_SHARES,
        lenient: bool = False,
    ) -> Prepared:
        """Plans and compares; ``lenient`` leaves out what this machine does not have."""
        host = self._kernel.network.view(backend_addresses(config) | probe_destinations(config))
        reach = plan_reach(config, host, force=force)
        problems = list(reach.problems)
        if lenient:
            lacking = self._lacking(config, host)
            problems += lacking
            config = usable_config(config, host, {str(p.path[1]) for p in lacking})
        if problems and not lenient:
            raise ProblemsError(problems)
        unreached = unreached_backends(config, reach)
        memory = self._memory()
        have = self._kernel.nftables.observe()
        known = merge_ids(memory.ids, recover_ids(have))
        renamed = renamed_services(config, known, have)
        standings = away_standings(standings, unreached)
        effective = effective_config(config, standings, shares)
        ids = plan_ids(effective, known, self._clock(), renamed)
        absent = absent_backends(standings)
        desired = plan_desired(effective, host, reach, ids, absent)
        tunnels = diff_tunnels(host.tunnels, desired.tunnels)
        if not lenient:
            self._require_kinds(config, tunnels)
        shaped = shape(desired, have.maps if have else ())
        want = shaped.ruleset
        counts = self._kernel.nftables.counts() if have else {}
        owned, wanted = set(owned_addresses(host)), set(desired.addresses)
        change = Change(
            transaction=diff_rulesets(have, want, counts),
            add=tuple(a for a in desired.addresses if a not in owned),
            remove=tuple(a for a in owned_addresses(host) if a not in wanted),
            tunnels=tunnels,
            devices={**desired.tunnels.devices, **host.tunnels.devices},
        )
        past = past_counts(memory.past, config, known, want, counts)
        planned = keep_plan(config, standings, shares, unreached, effective, ids, desired)
        applied = Applied(config, host, reach, ids, planned, shaped, unreached)
        return Prepared(change, Memory(ids, past), applied, tuple(problems), have)

    def _lacking(self, config: Config, host: HostView) -> list[Problem]:
        """The services whose tunnels this kernel cannot make, unless it has made some."""
        if host.tunnels.devices or all(s.forwarding is Forwarding.L2 for s in config.services):
            return []
        return missing_tunnels(config, self._kernel.tunnels.missing)

    def _require_kinds(self, config: Config, change: TunnelChange) -> None:
        """Raises ProblemsError for tunnels whose devices this kernel cannot make."""
        if change.add:
            problems = missing_tunnels(config, self._kernel.tunnels.missing)
            if problems:
                raise ProblemsError(problems)

    def _memory(self) -> Memory:
        unsaved = self._unsaved
        self.remembered = self._store.memory() if unsaved is None else unsaved
        return self.remembered

    def _remember(self, before: Memory, now: Memory) -> None:
        self.remembered = now
        if now != before or self.unsaved:
            self._store.save_memory(now)
            self._unsaved, self.unsaved = None, ""

    def _try_remember(self, before: Memory, now: Memory) -> None:
        """What the disk does not take is kept here, for the next time."""
        try:
            self._remember(before, now)
        except StateError as error:
            self._unsaved, self.unsaved = now, str(error)


def next_generations(generation: int, transaction: Transaction) -> tuple[int, ...]:
    """nftables' generations during a transaction and after it."""
    made = []
    for part in in_turn(transaction):
        if part:
            generation = (generation + 1) & 0xFFFFFFFF or 1  # it never is 0 (nf_tables_commit)
            made.append(generation)
    return tuple(made) or (generation,)


def _before(generation: int) -> int:
    return generation - 1 or 0xFFFFFFFF
