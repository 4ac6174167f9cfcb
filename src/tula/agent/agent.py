"""Joins, leaves and looks: composes plan, machine and record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tula.agent.diff import (
    Made,
    Step,
    diff_backend,
    has_made,
    settings_of,
    will_have_made,
)
from tula.agent.plan import Role, plan_backend_side
from tula.agent.record import Record, RecordFile
from tula.agent.unit import Unit
from tula.kernel.backend_host import BackendHost, has_dummy
from tula.model.backend_setup import VIP_DEVICE, BackendFacts, BackendSide
from tula.model.config import Forwarding, IPAddress, Tunnel
from tula.plan.tunnels import outer_address


class NotFitError(Exception):
    """The document does not fit this machine; nothing was changed. One line that names the mend."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What this machine must have, what it has, and the steps between."""

    want: BackendSide
    facts: BackendFacts
    steps: list[Step]
    unit: bool = False
    """Whether the systemd unit is to be written, changed or removed."""

    def __bool__(self) -> bool:
        return bool(self.steps) or self.unit


class Agent:
    """One machine's backend's side. Methods raise KernelError for what failed."""

    def __init__(self, host: BackendHost, records: RecordFile, unit: Unit | None = None) -> None:
        """``unit`` is what brings it back after a reboot; None where there is no systemd."""
        self._host = host
        self._records = records
        self._unit = unit

    def record(self) -> Record | None:
        """What was joined, if anything."""
        return self._records.read()

    def plan(self, roles: Sequence[Role], persist: bool = False) -> Plan:
        """What ``join`` would do. Raises NotFitError; changes nothing but the modules loaded."""
        record = self._records.read() or Record()
        return self._plan(roles, record, persist)

    def join(self, roles: Sequence[Role], record: Record, persist: bool = False) -> Plan:
        """Does it; ``record`` has the documents of the roles. Raises NotFitError."""
        with self._records.locked():
            before = self._records.read() or Record()
            plan = self._plan(roles, before, persist)
            made = will_have_made(plan.want, plan.facts, before.made)
            unit = str(self._unit.path) if persist and self._unit is not None else before.unit
            # What may be left behind is on the disk before it is in the kernel. The documents
            # are the old ones until all is done: a join that is killed half-way is not accepted.
            kept = before.sources or record.sources
            addresses = record.addresses or before.addresses
            self._records.write(Record(kept, made, addresses, unit))
            for step in plan.steps:
                self._host.run(step.commands)
            listing = self._host.observe(()).filter
            if plan.unit and self._unit is not None:
                self._unit.ensure()
            done = has_made(plan.want, made, listing)
            self._records.write(Record(record.sources, done, addresses, unit))
        return plan

    def leave(self) -> Plan:
        """Takes everything back; the steps that it took."""
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
        nothing = BackendSide()
        facts = self._host.observe(settings_of(nothing, record.made))
        return Plan(nothing, facts, diff_backend(nothing, facts, record.made), bool(record.unit))

    def _plan(self, roles: Sequence[Role], record: Record, persist: bool) -> Plan:
        want = self._want(roles, record.made)
        facts = self._host.observe(settings_of(want, record.made))
        _require_silent(want, facts, record.made)
        steps = diff_backend(want, facts, record.made)
        unit = persist and self._unit is not None and not self._unit.is_there()
        return Plan(want, facts, steps, unit)

    def _want(self, roles: Sequence[Role], made: Made) -> BackendSide:
        outers = {a for role in roles for _, b in role.serves for a in b.addresses}
        had = any(end.name == VIP_DEVICE for end in made.side.ends)
        device = VIP_DEVICE if had or has_dummy(self._host) else "lo"
        want = plan_backend_side(roles, device, self._host.wire(outers))
        if twice := _twice(end.name for end in want.ends):
            raise NotFitError(
                f"this machine is two backends of the document, and cannot have the device {twice} "
                "for both; choose one with --as"
            )
        kinds = {end.kind for end in want.ends} | _gue_kinds(roles)
        if lacking := sorted(self._host.missing(kinds)):
            raise NotFitError(
                f"this kernel has no {' and '.join(lacking)}, which the document's tunnels need; "
                "choose another tunnel for this machine's services"
            )
        return want


def _twice(names: Iterable[str]) -> str:
    counts = Counter(names)
    return next((name for name, count in counts.items() if count > 1), "")


def _gue_kinds(roles: Iterable[Role]) -> set[str]:
    return {
        "fou" if outer_address(backend).version == 4 else "fou6"
        for role in roles
        for service, backend in role.serves
        if service.forwarding is Forwarding.L3 and service.tunnel is Tunnel.GUE
    }


def _require_silent(want: BackendSide, facts: BackendFacts, made: Made) -> None:
    """No VIP may be where the machine announces it, other than as its balancer."""
    ours = {end.name for end in (*want.ends, *made.side.ends)} | {"lo"}
    vips: set[IPAddress] = {held.vip for held in want.vips} - facts.balanced
    wrong = sorted(
        f"{vip} is on {d}" for vip, d in facts.addresses if vip in vips and d not in ours
    )
    if wrong:
        vip, _, device = wrong[0].partition(" is on ")
        length = 128 if ":" in vip else 32
        raise NotFitError(
            f"{', '.join(wrong)}, where this machine would announce it; take it away from there "
            f"(ip address del {vip}/{length} dev {device}), it is put where nobody is told"
        )
