"""One machine's balancer: brings data path and VIPs to a configuration, and says what was done.

The same for ``tula apply`` without a daemon and for the daemon. Not for several threads: whoever
changes something does so from one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from tula.dataplane.port import Followed, Memory, Receipt
from tula.engine.change import Applied, Change, Outcome, Prepared, has_heard, routes_moved
from tula.engine.commit import commit_path
from tula.engine.forwarders import ask_for_macs, with_macs
from tula.engine.history import Record
from tula.engine.host_settings import HostSettings
from tula.engine.overrides import changed_overrides
from tula.engine.reader import Adapters
from tula.engine.retired import add_counts
from tula.engine.served import Served
from tula.engine.store import Remembered, Store
from tula.engine.unmonitored import StatusesOf, Unmonitored, require_daemon
from tula.kernel.clock import boot_time
from tula.model.config import Config
from tula.model.errors import KernelError, StaleError, StateError
from tula.model.flow import Flow, FlowEntry
from tula.model.health import BackendName, Override, ProbeSocket
from tula.model.problem import Problem, ProblemsError
from tula.plan.backend_status import NO_SHARES, Shares
from tula.plan.desired import adjust_plan, plan_desired
from tula.plan.probes import probe_destinations
from tula.plan.routes import backend_addresses, plan_routes, takes_own_address
from tula.plan.usable import awaits_interface, unreached_backends, usable_config


class Balancer(Unmonitored):
    """Composes plan, data path, VIPs and store for one network namespace and state directory.

    Methods raise ProblemsError for a configuration that does not fit this machine, KernelError and
    StateError for what failed before anything was changed. What fails after the data path was
    changed is a warning of the outcome, and tried again by the next call.
    """

    def __init__(
        self, adapters: Adapters, store: Store, clock: Callable[[], float] = boot_time
    ) -> None:
        """``clock`` tells seconds of the boot clock."""
        super().__init__(adapters, store, clock)
        self.served = Served(adapters.vips, store.directory)
        """which services are, and whether the operator wants others to have the VIPs"""
        self.applied: Applied | None = None
        """What the last change of this process left; None when that is not known."""
        self.unsaved = ""
        """Why the disk did not take what must be remembered; it is tried again."""
        self._unsaved: Remembered | None = None
        self._unaccepted: tuple[bytes, Record | None, Callable[[], None]] | None = None
        self.last_remembered = Remembered()
        """What was read from the disk or meant for it last."""

    def plan(
        self,
        config: Config,
        source: bytes,
        *,
        force: bool = False,
        statuses: StatusesOf | None = None,
        shares: Shares = NO_SHARES,
    ) -> Change:
        """What ``apply`` would do; changes nothing."""
        if statuses is None:
            require_daemon(config)
            statuses = self.without_monitors(config)
        return self._prepare(config, statuses, force or self._accepted(source), shares).change

    def compare(
        self, config: Config, statuses: StatusesOf, shares: Shares
    ) -> tuple[Change, tuple[Problem, ...]]:
        """What ``reconcile`` would do, and what is in its way; changes nothing."""
        prepared = self.inspect(config, statuses, shares)
        return prepared.change, prepared.problems

    def inspect(self, config: Config, statuses: StatusesOf, shares: Shares = NO_SHARES) -> Prepared:
        """As ``compare``, with what was read for it."""
        return self._prepare(config, statuses, True, shares, lenient=True)

    def follow(self, found: Prepared, flow: Flow, entry: FlowEntry | None) -> Followed:
        """Where a flow goes now in a data path that differs."""
        return self._path.follow(found.have, found.path, flow, entry)

    def apply(
        self,
        config: Config,
        source: bytes,
        *,
        force: bool = False,
        late: bool = False,
        statuses: StatusesOf | None = None,
        shares: Shares = NO_SHARES,
        record: Record | None = None,
        tentative: bool = False,
    ) -> Outcome:
        """Brings the machine to the configuration in one step, and accepts it.

        ``late``: interfaces that it names may come later; until then it is done as far as it can
        be, and the rest is among the problems.
        ``record`` is for the history. One that is ``tentative`` is not accepted: after a crash
        the accepted one comes back.
        """
        with self._store.locked():
            if statuses is None:
                require_daemon(config)
                statuses = self.without_monitors(config)
                ask_for_macs(config, self._network)
            force = force or self._accepted(source)
            prepared = self._prepare(config, statuses, force, shares, late=late)
            before = self._remembered()
            # Numbers first, so that a full disk is found before the kernel is changed. Counts
            # last: an element that is still there must not count twice.
            early = Remembered(self._path.dump(prepared.path.memory), before.retired)
            self._remember(before, early)
            try:
                accept = None
                if not tentative:
                    accept = self._store.prepare_configuration(source, record)
                prepared, receipt = self._commit(prepared, strict=True)
            except (KernelError, StateError):
                # The old configuration goes on, and its counts are found by the old numbers.
                self._try_remember(early, before)
                raise
            if accept is not None:
                self._unaccepted = (source, record, accept)
            return self._finish(prepared, receipt, early)

    def accept(self, source: bytes, record: Record) -> None:
        """Accepts the configuration that runs, which was tentative. Raises StateError."""
        with self._store.locked():
            self._store.prepare_configuration(source, record)()
            self._unaccepted = None

    def reconcile(
        self, config: Config, statuses: StatusesOf, shares: Shares = NO_SHARES
    ) -> Outcome:
        """Brings the machine back to an accepted configuration, as far as it can be.

        What the disk does not take is told, and keeps nothing from the kernel.
        """
        with self._store.locked():
            return self._reconcile(config, statuses, shares)

    def override(
        self, config: Config, name: BackendName, change: Callable[[Override], Override]
    ) -> Outcome:
        """Without a daemon: changes the override of a backend of the accepted configuration, and
        brings the kernel to it. When that fails, the override is as it was."""
        with self._store.locked():
            before = self._store.overrides()
            self._store.save_overrides(changed_overrides(before, name, change))
            try:
                return self._reconcile(config, self.without_monitors(config))
            except (KernelError, StateError, ProblemsError):
                self._store.save_overrides(before)
                raise

    def _reconcile(
        self, config: Config, statuses: StatusesOf, shares: Shares = NO_SHARES
    ) -> Outcome:
        left, self.applied = self.applied, None
        prepared = self._prepare(config, statuses, True, shares, lenient=True)
        drifted = left is not None and self._has_drifted(left, prepared)
        before = self._remembered()
        early = Remembered(self._path.dump(prepared.path.memory), before.retired)
        self._try_remember(before, early)
        prepared, receipt = self._commit(prepared, strict=False)
        done = self._finish(prepared, receipt, early)
        return replace(done, drifted=drifted, heard=left is not None and has_heard(left, prepared))

    def adjust(self, statuses: StatusesOf, shares: Shares = NO_SHARES) -> Outcome:
        """Brings other statuses of the applied configuration's backends to the kernel, no more.

        Nothing is read before it: raises StaleError when somebody else has changed something
        since, and KernelError; then only ``reconcile`` helps.
        """
        # Without the store's lock, which the daemon holds as long as it runs: health must reach
        # the kernel though the state directory is gone.
        applied = self.applied
        if applied is None or applied.receipt.revision is None:
            raise StaleError
        self.applied = None
        plan = adjust_plan(applied.plan, statuses, shares)
        memory = applied.receipt.memory
        change = self._path.diff(applied.receipt, plan.state, memory)
        receipt = self._path.commit(change, applied.receipt.revision)
        committed = time.monotonic()
        self.applied = replace(applied, plan=plan, receipt=receipt)
        if receipt.retired or receipt.memory != memory or self.unsaved:
            self._remember_adjusted(applied, receipt)
        # Health has reached the kernel by now; which balancer has the VIPs comes after that.
        warnings = (*self.served.tell(plan), *self._tell_again())
        return Outcome(Change(change), (), warnings, self.unsaved, committed=committed)

    def share_again(self) -> None:
        """Has the other balancers told of all flows again. Raises KernelError."""
        if self.applied is not None:
            receipt = self._path.share_again(self.applied.receipt)
            self.applied = replace(self.applied, receipt=receipt)

    def _tell_again(self) -> list[str]:
        """After a change, and last: it takes longer than a change of health. Returns warnings."""
        try:
            if self.applied is not None and self.applied.receipt.tells_again:
                self.share_again()
        except KernelError as error:
            return [f"other balancers hear of some flows a minute late: {error}"]
        return []

    def _remember_adjusted(self, applied: Applied, receipt: Receipt) -> None:
        try:
            before = self._remembered()
        except StateError as error:
            self.unsaved = str(error)
            return
        retired = add_counts(before.retired, receipt.retired, applied.config)
        self._try_remember(before, Remembered(self._path.dump(receipt.memory), retired))

    def announce_again(self) -> list[str]:
        """Without a daemon: tells the network twice of every VIP that Tula put here; what failed.

        Whoever missed it (a cable that was not in yet) hears of it by the next ``tula apply``.
        """
        try:
            host = self._network.view(())
        except KernelError as error:
            return [str(error)]
        return [line for _ in range(2) for line in self._vips.announce_again(host)]

    def probe_socket(self, applied: Applied, service: str, backend: str) -> ProbeSocket:
        """How a probe names a backend, by ``Backend.key``."""
        return self._path.probe_socket(service, backend, applied.receipt.memory)

    def clear(self) -> Change:
        """Takes everything back that Tula made; the numbers stay in memory, the configuration
        aside.

        Overrides are forgotten.
        """
        with self._store.locked():
            host = self._network.view(())
            memory = self._memory()
            path = self._path.diff(self._path.observe_presence(), None, memory)
            # Engines first: while this machine hands its VIPs over, their packets still come.
            vips, _ = self._vips.take(self._vips.diff(host, (), None))
            failures = self._vips.settle(vips)
            failures += [*self._path.commit(path, None).warnings, *self._vips.release(vips)]
            if failures:
                raise KernelError("; ".join(failures))
            self.applied = None
            self._store.clear_configuration()
            self._store.save_remembered(Remembered(self._path.dump(memory)))
            self._unsaved, self.unsaved = None, ""
            if self._store.overrides():
                self._store.save_overrides({})
            settings = HostSettings(self._adapters.probe_route, self._adapters.sysctls, self._store)
            problems = settings.remove()
        if problems:
            raise KernelError("; ".join(problems))
        return Change(path, vips)

    def _accepted(self, source: bytes) -> bool:
        """What was forced once is accepted: a reboot must restore it without asking."""
        return source == self._store.configuration()

    def _prepare(
        self,
        config: Config,
        statuses: StatusesOf,
        force: bool,
        shares: Shares = NO_SHARES,
        lenient: bool = False,
        late: bool = False,
    ) -> Prepared:
        """Plans and compares; ``lenient`` leaves out what this machine does not have, and so does
        ``late`` if that is an interface."""
        host = self._network.view(backend_addresses(config) | probe_destinations(config))
        if not force and takes_own_address(config, host):
            host = replace(host, ssh_ports=self._network.ssh_ports())
        host = with_macs(config, host, self._network)
        lenient = lenient or (late and awaits_interface(config, host))
        routes = plan_routes(config, host, force=force)
        problems = list(routes.problems)
        if problems and (not lenient or routes.refusals):
            raise ProblemsError(problems)
        have = self._path.observe()
        if lenient:
            lacking = self._path.unsupported(config, have)
            problems += lacking
            config = usable_config(config, host, {problem.path for problem in lacking})
        unreachable = unreached_backends(config, routes)
        plan = plan_desired(config, host, routes, statuses, shares, unreachable)
        path = self._path.diff(have, plan.state, self._memory())
        if not lenient and "tunnels" in path.parts:
            self._require_support(config)
        lacking = self.served.problems(plan)
        if lacking and not lenient:
            raise ProblemsError(lacking)
        warnings = tuple(caution.problem for caution in routes.cautions)
        problems += [*lacking, *warnings]
        vips = self._vips.diff(host, plan.state.vips, plan.state.announcing)
        change = Change(path, vips, warnings)
        return Prepared(
            change, path, have, config, host, routes, plan, tuple(problems), unreachable
        )

    def _require_support(self, config: Config) -> None:
        """Raises ProblemsError for services that this kernel cannot carry."""
        problems = self._path.unsupported(config)
        if problems:
            raise ProblemsError(problems)

    def _commit(self, prepared: Prepared, *, strict: bool) -> tuple[Prepared, Receipt]:
        """Makes a change, or raises KernelError and has left all as it was.

        VIPs come before what their packets are for, but where there was nothing of Tula's: after
        a reboot clients and routers still send to the VIPs, and the host's own stack would reset
        their connections. Unless ``strict``, a VIP that an interface does not take keeps nothing
        else from its service: it is told among the problems.
        """
        fresh = not prepared.have.present
        receipt = commit_path(self._path, prepared) if fresh else None
        vips, failures = self._vips.take(prepared.change.vips)
        try:
            if failures and strict:
                raise KernelError("; ".join(failures))
            if receipt is None:
                receipt = commit_path(self._path, prepared)
        except KernelError:
            self._vips.undo(vips)
            if fresh:
                again = self._path.observe_presence()
                self._path.commit(self._path.diff(again, None, self._memory()), None)
            raise
        if failures:
            problems = (Problem(("services",), failure) for failure in failures)
            prepared = replace(prepared, problems=(*prepared.problems, *problems))
            change = replace(prepared.change, vips=vips)
            prepared = replace(prepared, change=change, incomplete=True)
        return prepared, receipt

    def _finish(self, prepared: Prepared, receipt: Receipt, early: Remembered) -> Outcome:
        """After the change was made: nothing here can undo it."""
        committed = time.monotonic()
        retired = add_counts(early.retired, receipt.retired, prepared.config)
        self._try_remember(early, Remembered(self._path.dump(receipt.memory), retired))
        # Only now: packets that come for a VIP must find the rules, not the host's own stack.
        # And VIPs that go do so last: while one is still there, its packets belong to the rules.
        warnings = [
            *self._accept(),
            *self.served.tell(prepared.plan, again=True),
            *self._vips.announce(prepared.host),
            *self._vips.release(prepared.change.vips),
            *self._vips.settle(prepared.change.vips),
            *receipt.warnings,
        ]
        self.applied = prepared.applied(receipt)
        return Outcome(
            prepared.change,
            prepared.problems,
            (*warnings, *self._tell_again()),
            self.unsaved,
            committed=committed,
            incomplete=prepared.incomplete,
        )

    def _accept(self) -> list[str]:
        """The configuration that runs is the accepted one: on the disk too, or why not yet."""
        if self._unaccepted is None:
            return []
        source, record, accept = self._unaccepted
        try:
            accept()
        except StateError as error:
            # What was written aside may be gone: the next time it is written again.
            again = self._store.prepare_configuration
            self._unaccepted = (source, record, lambda: again(source, record)())
            return [f"the configuration runs, and is not accepted on disk: {error}"]
        self._unaccepted = None
        return []

    def _has_drifted(self, left: Applied, found: Prepared) -> bool:
        return (
            bool(found.change.vips)
            or self._path.drifted(left.receipt, found.have)
            or routes_moved(left, found)
        )

    def _memory(self) -> Memory:
        return self._path.recall(self._remembered().path)

    def _remembered(self) -> Remembered:
        unsaved = self._unsaved
        self.last_remembered = self._store.remembered() if unsaved is None else unsaved
        return self.last_remembered

    def _remember(self, before: Remembered, now: Remembered) -> None:
        self.last_remembered = now
        if now != before or self.unsaved:
            self._store.save_remembered(now)
            self._unsaved, self.unsaved = None, ""

    def _try_remember(self, before: Remembered, now: Remembered) -> None:
        """What the disk does not take is kept here, for the next time."""
        try:
            self._remember(before, now)
        except StateError as error:
            self._unsaved, self.unsaved = now, str(error)
