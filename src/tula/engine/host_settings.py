"""What probes need of the machine beside Tula's own table: rule, route and sysctls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tula.engine.store import ChangedSysctl, Store
from tula.kernel.probe_route import ProbeRoute
from tula.kernel.sysctls import Sysctls
from tula.model.errors import KernelError, StateError
from tula.plan.probe_sysctls import (
    InterfaceRequirement,
    plan_probe_sysctls,
    settings_to_read,
    unmet_requirements,
)
from tula.plan.probes import ProbePlan


@dataclass(frozen=True, slots=True)
class SettingsOutcome:
    """The result of ``HostSettings.ensure``. ``problems`` are what the machine refused.

    Unless it is ``routed``, nothing may be probed through the data path: the probe of a VIP that
    another balancer holds would go there, and be answered by a backend of its choice.
    ``changed``: not all was as it had to be.
    """

    problems: tuple[str, ...]
    routed: bool
    closed: frozenset[str] = frozenset()
    """The interfaces on which answers from IPv4 VIPs cannot come in."""
    changed: bool = False


def settings_changed(made: Mapping[str, str], sysctls: Sysctls) -> bool:
    """Whether somebody else changed a setting that ``HostSettings`` made: the kernel does not tell
    of all of them."""
    for name, value in made.items():
        try:
            if sysctls.read(name) != value:
                return True
        except KernelError:
            return True
    return False


class HostSettings:
    """Brings them to what a plan needs, and takes them back.

    Both may be called again at any time, after a crash too: a setting's old value is on the disk
    before the new one is in the kernel. Call them under ``Store.locked``. What the machine refuses
    or the disk refuses is returned as texts, and the rest goes on.
    """

    def __init__(self, route: ProbeRoute, sysctls: Sysctls, store: Store) -> None:
        self._route = route
        self._sysctls = sysctls
        self._store = store
        self._made: dict[str, str] = {}

    def ensure(self, plan: ProbePlan, interfaces: Collection[str]) -> SettingsOutcome:
        """Has what the plan needs and nothing else; ``interfaces`` are all of the machine's."""
        problems: list[str] = []
        changes: list[bool] = []
        routed = self._attempt(lambda: changes.append(self._route.ensure(plan.versions)), problems)
        remembered = self._store.sysctls()
        present: dict[str, str] = {}
        needs = plan.needs or {}
        if needs or remembered:
            for name in [*settings_to_read(interfaces), *remembered]:
                value = self._read(name, problems)
                if value is not None:
                    before = remembered.get(name)
                    ours = before is not None and before.made == value
                    present[name] = before.found if before and ours else value
        wanted = plan_probe_sysctls(needs, present, interfaces)
        # First what goes back, the last one first: "all" may stand for what others lack.
        for name in [name for name in reversed(remembered) if name not in wanted]:
            self._restore(name, problems)
        for name, value in wanted.items():
            changes.append(self._set(name, ChangedSysctl(present[name], value), problems))
        self._made = {n: v for n, v in wanted.items() if self._read(n, []) == v}
        closed = self._closed(needs, problems)
        return SettingsOutcome(tuple(problems), routed, closed, any(changes))

    @property
    def made(self) -> Mapping[str, str]:
        """The sysctls that were set, with their values; replaced as a whole by ``ensure``."""
        return self._made

    def remove(self) -> list[str]:
        """Takes everything back; a setting that somebody else changed since stays."""
        problems: list[str] = []
        self._attempt(self._route.remove, problems)
        for name in reversed(self._store.sysctls()):
            self._restore(name, problems)
        return problems

    def _set(self, name: str, change: ChangedSysctl, problems: list[str]) -> bool:
        """Whether it had to be set, and was."""
        if self._read(name, problems) == change.made:
            return False
        before = self._store.sysctls()
        try:
            if before.get(name) != change:
                self._store.save_sysctls({**before, name: change})
        except StateError as error:  # it could never be taken back
            problems.append(f"cannot set sysctl {name}: {error}")
            return False
        try:
            self._sysctls.write(name, change.made)
        except KernelError as error:
            problems.append(str(error))
            self._save(before, problems)
            return False
        return True

    def _restore(self, name: str, problems: list[str]) -> None:
        remembered = self._store.sysctls()
        change = remembered.pop(name)
        try:
            if self._sysctls.read(name) == change.made:
                self._sysctls.write(name, change.found)
        except KernelError as error:
            problems.append(str(error))  # and it stays remembered, to be tried again
            return
        self._save(remembered, problems)

    def _save(self, remembered: Mapping[str, ChangedSysctl], problems: list[str]) -> None:
        try:
            self._store.save_sysctls(remembered)
        except StateError as error:
            problems.append(str(error))

    def _closed(
        self, needs: Mapping[str, InterfaceRequirement], problems: list[str]
    ) -> frozenset[str]:
        """The interfaces that do not allow what they must, after all."""
        if not needs:
            return frozenset()
        present = {name: self._read(name, []) for name in settings_to_read(needs)}
        closed = unmet_requirements(
            needs, {name: v for name, v in present.items() if v is not None}
        )
        problems += (
            f"answers from IPv4 VIPs do not come in by {interface}: backends there are not "
            "checked through them, and stay in service"
            for interface in closed
        )
        return frozenset(closed)

    def _read(self, name: str, problems: list[str]) -> str | None:
        try:
            return self._sysctls.read(name)
        except KernelError as error:
            problems.append(str(error))
            return None

    @staticmethod
    def _attempt(change: Callable[[], object], problems: list[str]) -> bool:
        """Whether it was done."""
        try:
            change()
        except KernelError as error:
            problems.append(str(error))
            return False
        return True
