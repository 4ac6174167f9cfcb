"""From what the reconciler applied to what is probed, and what the machine needs for that."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from tula.daemon.reconciler import Reconciler
from tula.engine.balancer import Balancer
from tula.engine.change import Applied, Change
from tula.engine.control import ApplyOutcome
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings, Settled
from tula.engine.steps import describe_steps
from tula.engine.store import Store
from tula.health.check import Check
from tula.health.checker import Checker
from tula.kernel.network import Neighbour, Network
from tula.model.config import Config
from tula.model.errors import KernelError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName, Health
from tula.model.monitor import HealthPolicy
from tula.plan.probes import PlannedProbe, ProbePlan, plan_probes, probed_neighbours

_ADOPTED = "was down when the daemon before this one ended"


@dataclass(frozen=True, slots=True)
class _Wanted:
    checks: tuple[Check, ...]
    policies: Mapping[str, HealthPolicy]


class Checks:
    """The checker's work, planned anew after each comparison with the kernel.

    ``plan`` and ``adopt`` are called in the kernel's thread, the rest in the event loop.
    """

    def __init__(
        self,
        checker: Checker,
        balancer: Balancer,
        reconciler: Reconciler,
        settings: HostSettings,
        store: Store,
        network: Network,
        events: EventLog,
    ) -> None:
        self._checker = checker
        self._balancer = balancer
        self._reconciler = reconciler
        self._settings = settings
        self._store = store
        self._network = network
        self._events = events
        self._resolved: set[Neighbour] = set()
        self._settled = Settled((), routed=False)
        self._needed: object = None
        self._wanted: _Wanted | None = None
        self._set: _Wanted | None = None
        self._adopted: dict[BackendName, Health] = {}
        self.problems: tuple[str, ...] = ()
        """What keeps something from being probed."""

    def findings(self) -> Mapping[BackendName, Health]:
        """How backends stand by their monitors, those that were adopted included."""
        return {**self._adopted, **self._checker.findings()}

    def take_decided(self) -> float | None:
        """When the first of the changes was decided that nobody has taken yet (monotonic)."""
        return self._checker.take_decided()

    def adopt(self, down: Collection[BackendName]) -> Mapping[BackendName, Health]:
        """The backends that start as down; they rise as others do."""
        now = time.time()
        self._adopted = {name: Health(False, now, _ADOPTED) for name in down}
        return self._adopted

    def plan(self, *, settle: bool) -> None:
        """Decides what is to be probed; ``settle``: has the machine allow it, too."""
        applied, document = self._balancer.applied, self._reconciler.document
        if applied is None or document is None or not (settle or self._wanted is None):
            return
        plan = plan_probes(
            applied.config,
            applied.host,
            applied.reach,
            partial(self._balancer.probe_socket, applied),
        )
        self._resolve(applied)
        problems = list(plan.problems)
        self._settle(plan, applied, problems)
        self.problems = tuple(problems)
        checks = _checks(document.config, plan, self._settled)
        policies = {service.name: service.policy for service in document.config.services}
        self._wanted = _Wanted(checks, policies)

    def undone(self) -> bool:
        """Whether somebody has changed what the machine was made to allow."""
        return self._settings.undone()

    def set(self) -> None:
        """Has the checker probe what was planned."""
        if self._wanted is not None and self._wanted != self._set:
            self._checker.set_checks(self._wanted.checks, self._wanted.policies, self._adopted)
            self._set, self._adopted = self._wanted, {}

    def applied(self, change: Change) -> ApplyOutcome:
        """The answer to whoever applied a document."""
        return ApplyOutcome(bool(change), tuple(describe_steps(change)))

    def _resolve(self, applied: Applied) -> None:
        neighbours = probed_neighbours(applied.config, applied.host, applied.reach)
        new = neighbours - self._resolved
        if new:
            with suppress(KernelError):  # then the first probes are lost, and the next are not
                self._network.resolve(new)
        self._resolved = neighbours

    def _settle(self, plan: ProbePlan, applied: Applied, problems: list[str]) -> None:
        """What cannot even be tried leaves all as it was."""
        try:
            with self._store.locked():
                self._settled = self._settings.ensure(plan, applied.host.links)
        except (KernelError, StateError) as error:
            problems.append(str(error))
            return
        problems += self._settled.problems
        needed = (plan.versions, plan.needs)
        if self._settled.changed and needed == self._needed:
            self._events.add(
                EventKind.KERNEL_MENDED, message="put back what probes need of this machine"
            )
        self._needed = needed


def _checks(config: Config, plan: ProbePlan, settled: Settled) -> tuple[Check, ...]:
    services = {service.name: service for service in config.services}
    return tuple(
        Check(
            backend=(probe.service, probe.backend),
            monitor=probe.position,
            settings=services[probe.service].health[probe.position],
            target=probe.target,
            direct=probe.direct,
        )
        for probe in plan.probes
        if probe.target.source is None or (settled.routed and _answerable(probe, settled))
    )


def _answerable(probe: PlannedProbe, settled: Settled) -> bool:
    """Whether its answers come in: of one that cannot be answered, nothing follows."""
    return probe.target.address.version == 6 or not probe.interfaces & settled.closed
