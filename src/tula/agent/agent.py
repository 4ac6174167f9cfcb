"""``tula backend join``, ``leave``, ``status`` and repair: composes plan, machine and record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from tula.agent.diff import (
    BackendStep,
    Made,
    diff_backend,
    files_of,
    ipv6_problem,
    made_after_steps,
    made_before_steps,
    settings_of,
)
from tula.agent.plan import Role, balanced_vips, plan_backend_setup
from tula.agent.record import Record, RecordFile, Source
from tula.agent.unit import Unit
from tula.kernel.backend_host import BackendHost, has_dummy
from tula.model.backend_setup import VIP_DEVICE, BackendFacts, BackendSetup
from tula.model.config import IPAddress, Tunnel
from tula.model.errors import KernelError
from tula.model.wording import named
from tula.plan.tunnels import outer_address


class CannotJoinError(Exception):
    """This machine cannot be the backend that the configuration asks for; nothing was changed.

    The message is one line that says how to fix it.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """What this machine must have, what it has, and the steps from one to the other."""

    want: BackendSetup
    facts: BackendFacts
    steps: list[BackendStep]
    unit: bool = False
    """Whether the systemd unit must be written or removed."""

    def __bool__(self) -> bool:
        return bool(self.steps) or self.unit


@dataclass(frozen=True, slots=True)
class Repair:
    """The steps that put back what others had taken, and those that failed, with the reasons."""

    done: tuple[BackendStep, ...] = ()
    failed: tuple[tuple[BackendStep, str], ...] = ()


class Agent:
    """The backend's side of one machine. Methods raise KernelError if the machine refuses."""

    def __init__(
        self,
        host: BackendHost,
        records: RecordFile,
        unit: Unit | None = None,
        unmanaged: str = "",
    ) -> None:
        """``unit`` restores the setup after a reboot; None if there is no systemd. ``unmanaged`` is
        the path of the file that keeps systemd-networkd off Tula's devices; empty for none."""
        self._host = host
        self._records = records
        self._unit = unit
        self._unmanaged = unmanaged
        self._settled: _Settled | None = None
        self._compared: list[str] = []

    def record(self) -> Record | None:
        """What was joined; None if nothing was."""
        return self._records.read()

    def watching(self) -> AbstractContextManager[None]:
        """For the one process that calls ``repair``. Raises KernelError if there is another."""
        return self._records.watching()

    def is_watched(self) -> bool:
        """Whether a process puts back what others take."""
        return self._records.is_watched()

    def plan(self, roles: Sequence[Role], persist: bool = False) -> Plan:
        """What ``join`` would do; only loads kernel modules. Raises CannotJoinError."""
        plan = self.compare(roles, persist)
        _require_ipv6(plan)
        return plan

    def compare(self, roles: Sequence[Role], persist: bool = False) -> Plan:
        """What differs, also where join would fail; raises CannotJoinError where there is no plan.

        Only loads kernel modules.
        """
        return self._plan(roles, self._records.read() or Record(), persist)

    def join(self, roles: Sequence[Role], record: Record, persist: bool = False) -> Plan:
        """Make this machine these backends; ``record`` has their configurations.

        Raises CannotJoinError.
        """
        with self._records.locked():
            before = self._records.read() or Record()
            plan = self._plan(roles, before, persist)
            _require_ipv6(plan)
            made = made_before_steps(plan.want, plan.facts, before.made)
            unit = str(self._unit.path) if persist and self._unit is not None else before.unit
            # Whatever may be left behind is recorded before it exists in the kernel. The
            # configurations stay the old ones until the end: an interrupted join does not count.
            kept = before.sources or record.sources
            addresses = record.addresses or before.addresses
            self._records.write(Record(kept, made, addresses, unit))
            for step in plan.steps:
                self._host.run(step.commands)
            listing = self._host.observe(()).filter
            if plan.unit and self._unit is not None:
                self._unit.ensure()
            done = made_after_steps(plan.want, made, listing)
            self._records.write(Record(record.sources, done, addresses, unit))
        return plan

    def repair(self, roles_of: Callable[[Record], Sequence[Role]]) -> Repair | None:
        """Put back what others have taken of what was joined; None if this machine has left.

        Can be called often: it changes only what differs, and one step that fails keeps no other
        from being taken. Raises CannotJoinError.
        """
        with self._records.locked():
            record = self._records.read()
            if record is None or not record.sources:
                return None
            if self._settled is None or self._settled.sources != record.sources:
                roles = roles_of(record)
                self._settled = _Settled(record.sources, roles, self._device(record.made))
            settled = self._settled
            want = self._plan_setup(settled.roles, settled.device, record.made)
            facts = self._observe(want, record.made)
            self._compared = settings_of(want, record.made)
            steps = diff_backend(want, facts, record.made)
            if not steps:
                return Repair()
            made = made_before_steps(want, facts, record.made)
            self._records.write(replace(record, made=made))
            done, failed = [], []
            for step in steps:
                try:
                    self._host.run(step.commands)
                    done.append(step)
                except KernelError as error:
                    failed.append((step, str(error)))
            listing = self._host.observe(()).filter
            # A step that failed may have left behind what must be removed.
            kept = (
                replace(made, listing=listing) if failed else made_after_steps(want, made, listing)
            )
            self._records.write(replace(record, made=kept))
        return Repair(tuple(done), tuple(failed))

    def settings(self) -> dict[str, str]:
        """The sysctls that the last ``repair`` compared, as they are; no event tells of them."""
        return self._host.read(self._compared)

    def leave(self) -> Plan:
        """Undo everything that was joined; returns the steps taken."""
        with self._records.locked():
            record = self._records.read() or Record()
            plan = self.plan_leave(record)
            for step in plan.steps:
                self._host.run(step.commands)
            if record.unit and self._unit is not None:
                self._unit.remove()
            self._records.remove()
        return plan

    def plan_leave(self, record: Record) -> Plan:
        """What ``leave`` would do."""
        nothing = BackendSetup()
        facts = self._observe(nothing, record.made)
        return Plan(nothing, facts, diff_backend(nothing, facts, record.made), bool(record.unit))

    def _plan(self, roles: Sequence[Role], record: Record, persist: bool) -> Plan:
        want = self._want(roles, record.made)
        facts = self._observe(want, record.made)
        _require_unannounced(want, facts, record.made, balanced_vips(roles))
        steps = diff_backend(want, facts, record.made)
        unit = persist and self._unit is not None and not self._unit.is_there()
        return Plan(want, facts, steps, unit)

    def _observe(self, want: BackendSetup, made: Made) -> BackendFacts:
        return self._host.observe(settings_of(want, made), files_of(want, made))

    def _device(self, made: Made) -> str:
        """The device that holds the VIPs."""
        had = any(device.name == VIP_DEVICE for device in made.setup.devices)
        return VIP_DEVICE if had or has_dummy(self._host) else "lo"

    def _plan_setup(self, roles: Sequence[Role], device: str, made: Made) -> BackendSetup:
        outer_addresses = {a for role in roles for _, b in role.serves for a in b.addresses}
        want = plan_backend_setup(roles, device, self._host.link_mtu(outer_addresses))
        unmanaged = (self._unmanaged or made.setup.unmanaged) if want.devices else ""
        return replace(want, unmanaged=unmanaged)

    def _want(self, roles: Sequence[Role], made: Made) -> BackendSetup:
        want = self._plan_setup(roles, self._device(made), made)
        if twice := _twice(device.name for device in want.devices):
            raise CannotJoinError(
                f"this machine is two backends of the configuration, which cannot share the device "
                f"{twice}; choose one with --as"
            )
        kinds = {device.kind for device in want.devices} | _gue_kinds(roles)
        if lacking := sorted(self._host.missing(kinds)):
            raise CannotJoinError(
                f"this kernel does not support {' and '.join(lacking)}, which the tunnels of the "
                "configuration need; choose another tunnel for this machine's services"
            )
        return want


@dataclass(frozen=True, slots=True)
class _Settled:
    """What is the same at every repair until another configuration is joined."""

    sources: tuple[Source, ...]
    roles: Sequence[Role]
    device: str


def _require_ipv6(plan: Plan) -> None:
    if problem := ipv6_problem(plan.want, plan.facts):
        vips = ", ".join(
            sorted({str(held.vip) for held in plan.want.vips if held.vip.version == 6})
        )
        raise CannotJoinError(
            f"{problem}, and this machine is to serve {vips}; enable IPv6 (sysctl -w "
            "net.ipv6.conf.all.disable_ipv6=0, and in /etc/sysctl.d), or take the IPv6 VIPs off "
            "this backend's services"
        )


def _twice(names: Iterable[str]) -> str:
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), "")


def _gue_kinds(roles: Iterable[Role]) -> set[str]:
    return {
        "fou" if outer_address(backend).version == 4 else "fou6"
        for role in roles
        for service, backend in role.serves
        if service.tunnel_of(backend) is Tunnel.GUE
    }


def _require_unannounced(
    want: BackendSetup, facts: BackendFacts, made: Made, balanced: Collection[IPAddress]
) -> None:
    """No VIP may be on an interface where the machine announces it, unless it balances that VIP."""
    ours = {device.name for device in (*want.devices, *made.setup.devices)} | {"lo"}
    vips: set[IPAddress] = {held.vip for held in want.vips} - facts.balanced - set(balanced)
    found = {(vip, name) for vip, name in facts.addresses if vip in vips and name not in ours}
    wrong = sorted(found, key=lambda held: (held[0].version, held[0], held[1]))
    if wrong:
        places = named([f"{vip} on {device}" for vip, device in wrong])
        prefixes = [f"{vip}/{facts.lengths.get((vip, d), vip.max_prefixlen)}" for vip, d in wrong]
        commands = "; ".join(
            f"ip address del {prefix} dev {device}"
            for prefix, (_, device) in zip(prefixes, wrong, strict=True)
        )
        raise CannotJoinError(
            f"this machine has {places}, where it would announce {_it(wrong)}; remove {_it(wrong)} "
            f"from there ({commands}): join adds {_it(wrong)} where nothing announces {_it(wrong)}"
        )


def _it(things: Collection[object]) -> str:
    return "it" if len(things) == 1 else "them"
