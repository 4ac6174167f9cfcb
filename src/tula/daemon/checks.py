"""From what the kernel was brought to, to what is probed and what the machine needs for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from tula.daemon.snapshot import PlannedChecks, Snapshot
from tula.engine.change import Applied
from tula.engine.event_log import EventLog
from tula.engine.host_settings import HostSettings, SettingsOutcome
from tula.engine.statistics import ProbeStatistics
from tula.engine.store import Store
from tula.health.check import Check
from tula.health.checker import Checker, ListedProbes
from tula.kernel.network import Neighbour, Network
from tula.model.config import Config
from tula.model.errors import KernelError, StateError
from tula.model.event import EventKind
from tula.model.health import BackendName, Health, ProbeSocket
from tula.plan.forwarders import unknown_forwarders
from tula.plan.probes import PlannedProbe, ProbePlan, plan_probes, probed_neighbours


class CheckPlanner:
    """Plans what is to be probed, and has the machine allow it. The writer's, in its thread."""

    def __init__(
        self,
        settings: HostSettings,
        store: Store,
        network: Network,
        probe_socket: Callable[[Applied, str, str], ProbeSocket],
        events: EventLog,
    ) -> None:
        """``probe_socket``: as ``Balancer.probe_socket``."""
        self._probe_socket = probe_socket
        self._settings = settings
        self._store = store
        self._network = network
        self._events = events
        self._resolved: set[Neighbour] = set()
        self._settled = SettingsOutcome((), routed=False)
        self._needed: object = None
        self.planned: PlannedChecks | None = None
        """The last plan; None before the first."""

    def plan(self, config: Config, applied: Applied, *, settle: bool) -> None:
        """Plans anew; without ``settle`` only where there is no plan yet.

        What the machine refuses is told in the plan's ``problems``.
        """
        if not settle and self.planned is not None:
            return
        plan = plan_probes(
            applied.config,
            applied.host,
            applied.routes,
            partial(self._probe_socket, applied),
        )
        self._resolve(applied)
        problems = [*plan.problems, *self._settle(plan, applied)]
        checks = _checks(config, plan, self._settled)
        policies = {service.name: service.policy for service in config.services}
        new = PlannedChecks(checks, policies, self._settings.made, tuple(problems))
        if new != self.planned:
            self.planned = new

    def _resolve(self, applied: Applied) -> None:
        neighbours = probed_neighbours(applied.config, applied.host, applied.routes)
        # Asked for again as long as they do not answer.
        unknown = {
            (applied.host.links[name].index, address)
            for name, address in unknown_forwarders(applied.config, applied.host)
        }
        new = (neighbours - self._resolved) | unknown
        if new:
            with suppress(KernelError):  # then the first probes are lost, and the next are not
                self._network.resolve(new)
        self._resolved = neighbours

    def _settle(self, plan: ProbePlan, applied: Applied) -> tuple[str, ...]:
        """The problems. What cannot even be tried leaves everything as it was."""
        try:
            with self._store.locked():
                self._settled = self._settings.ensure(plan, applied.host.links)
        except (KernelError, StateError) as error:
            return (str(error),)
        needed = (plan.versions, plan.needs)
        if self._settled.changed and needed == self._needed:
            self._events.add(
                EventKind.KERNEL_REPAIRED, message="restored what probes need of this machine"
            )
        self._needed = needed
        return self._settled.problems


class Checks:
    """The checker, kept to what the snapshots plan. Called in the event loop."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._set: PlannedChecks | None = None
        self._adopted: Mapping[BackendName, Health] = {}

    def findings(self) -> Mapping[BackendName, Health]:
        """The backends' health by their monitors; those adopted, until they are probed."""
        return {**self._adopted, **self._checker.findings()}

    @property
    def following(self) -> bool:
        """Whether there are checks, and what was known before them has been taken up."""
        return self._set is not None

    def take_decided(self) -> float | None:
        """When the first verdict was reached since this was last asked (monotonic)."""
        return self._checker.take_decided()

    def follow(self, snapshot: Snapshot) -> None:
        """Has the checker probe what the snapshot plans."""
        wanted, had = snapshot.checks, self._set
        if wanted is None:
            self._adopted = snapshot.adopted
            return
        if wanted is had:
            return
        if had is None or (wanted.checks, wanted.policies) != (had.checks, had.policies):
            # The backends that were down start as down; they rise as others do.
            adopted = snapshot.adopted if had is None else {}
            self._checker.set_checks(wanted.checks, wanted.policies, adopted)
        self._set, self._adopted = wanted, {}


class ProbeTable:
    """The statistics of all probes by backend, kept up to date by what has changed.

    Scraped several times a second, thousands of probes would cost the daemon's other threads tens
    of milliseconds each time; a probe changes once an interval. For one thread at a time.
    """

    def __init__(self) -> None:
        self._listed: ListedProbes = ()
        self._shown: list[tuple[object, int, int] | None] = []
        self._places: list[tuple[tuple[BackendName, int], ...]] = []
        self._of: dict[BackendName, tuple[ProbeStatistics, ...]] = {}

    def read(self, listed: ListedProbes) -> Mapping[BackendName, tuple[ProbeStatistics, ...]]:
        """The statistics now, with ``Checker.listed``; never changed once it was returned."""
        if listed is not self._listed:
            self._begin(listed)
        changed: dict[BackendName, list[ProbeStatistics]] = {}
        for number, (probe, _) in enumerate(listed):
            outcome, failed, flaps = probe.outcome, probe.failed, probe.state.flaps
            shown = self._shown[number]
            if shown is not None and shown[0] is outcome and shown[1:] == (failed, flaps):
                continue
            self._shown[number] = (outcome, failed, flaps)
            seconds = outcome.seconds if outcome is not None else None
            for name, place in self._places[number]:
                probes = changed.setdefault(name, list(self._of[name]))
                check = probes[place].check
                probes[place] = ProbeStatistics(check, seconds, failed, flaps)
        if changed:
            self._of = {**self._of, **{name: tuple(probes) for name, probes in changed.items()}}
        return self._of

    def _begin(self, listed: ListedProbes) -> None:
        """A backend's probes of one kind are numbered."""
        found: dict[BackendName, list[ProbeStatistics]] = {}
        numbers: dict[tuple[BackendName, str], int] = {}
        self._places = []
        for probe, names in listed:
            kind = probe.check.settings.type
            places = []
            for name in names:
                number = numbers[name, kind] = numbers.get((name, kind), 0) + 1
                probes = found.setdefault(name, [])
                places.append((name, len(probes)))
                probes.append(ProbeStatistics(kind if number == 1 else f"{kind}-{number}"))
            self._places.append(tuple(places))
        self._of = {name: tuple(probes) for name, probes in found.items()}
        self._shown = [None] * len(listed)
        self._listed = listed


def _checks(config: Config, plan: ProbePlan, settled: SettingsOutcome) -> tuple[Check, ...]:
    services = {service.name: service for service in config.services}
    return tuple(
        Check(
            backend=(probe.service, probe.backend),
            monitor=probe.position,
            settings=services[probe.service].health[probe.position],
            target=probe.target,
            direct=probe.direct,
            obstacle=probe.obstacle,
        )
        for probe in plan.probes
        if probe.target.source is None or (settled.routed and _answerable(probe, settled))
    )


def _answerable(probe: PlannedProbe, settled: SettingsOutcome) -> bool:
    """Whether its answers come in: of one that cannot be answered, nothing follows."""
    return probe.target.address.version == 6 or not probe.interfaces & settled.closed
