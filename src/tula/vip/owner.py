"""The port: VIPs as the engine sees them, whoever puts them there and announces them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tula.dataplane.port import ChangeStep
from tula.model.announcing import Announcing
from tula.model.bgp import BgpSessionState
from tula.model.command import Command
from tula.model.desired import Announce, DesiredVip
from tula.model.host import HostView


class VipChange(Protocol):
    """What one owner would do; false when that is nothing."""

    def __bool__(self) -> bool: ...

    def steps(self, *, before: bool) -> list[ChangeStep]:
        """What it does before the data path changes, or after, for people."""


@dataclass(frozen=True, slots=True)
class NoChange:
    """Nothing to do."""

    def __bool__(self) -> bool:
        return False

    def steps(self, *, before: bool) -> list[ChangeStep]:  # noqa: ARG002
        return []


_C = TypeVar("_C")


class VipOwner(Protocol[_C]):
    """One way to own VIPs; ``_C`` is its kind of VipChange.

    ``diff`` changes nothing. The rest returns what the machine refused, a line each, and does the
    others all the same; what is not done, the next ``diff`` finds, or the next ``announce`` does.
    """

    def unsupported(self, wanted: Sequence[DesiredVip], announcing: Announcing | None) -> list[str]:
        """What this machine lacks for it, with the fix; ``diff`` then has nothing to do."""

    def diff(
        self, host: HostView, wanted: Sequence[DesiredVip], announcing: Announcing | None
    ) -> _C:
        """What must change so that this owner has the VIPs in ``wanted`` and no others.

        ``announcing`` is None where this machine is not one of several balancers.
        """

    def take(self, change: _C) -> tuple[_C, list[str]]:
        """Puts new VIPs there, without a word to the network; what was done of it, and failures.
        What would be refused later has to be found here. Where the network can be told of those
        that go before their rules do, it is told now."""

    def serve(
        self, wanted: Sequence[DesiredVip], served: Mapping[str, bool], standby: bool
    ) -> list[str]:
        """Says which services are served here, and whether the operator wants another balancer to
        have the VIPs. Called before the first ``announce``, and when it changes."""

    def announce(self, host: HostView) -> list[str]:
        """Tells the network of VIPs that were taken. Packets come from then on, so the data path
        has to be ready."""

    def announce_again(self, host: HostView) -> list[str]:
        """Tells the network of all VIPs that are there: one announcement may be lost, or come
        before anyone can hear it."""

    def release(self, change: _C) -> list[str]:
        """Takes back what goes. Until then its packets have to find their rules."""

    def settle(self, change: _C) -> list[str]:
        """After all owners have released theirs: an engine hears of its VIPs only now, since one
        that another owner had must be gone before. Engines come first, and then those who take
        from them."""

    def undo(self, change: _C) -> None:
        """Takes ``take`` back, as far as it can be."""

    def hold(self) -> None:
        """Until ``let_go`` an engine that does not run is not started. One that runs goes on."""

    def let_go(self) -> list[str]:
        """Starts what waited for it."""

    def sessions(self) -> list[BgpSessionState]:
        """Its sessions with routers, as they are now."""

    def revive(self) -> list[str]:
        """Starts an engine again that has died, where nobody else does. From any thread."""

    def removal(self) -> list[Command]:
        """What ends an engine on a machine that no longer has Tula."""


class QuietOwner:
    """The calls that an owner without an engine has nothing to do for."""

    def unsupported(
        self,
        wanted: Sequence[DesiredVip],  # noqa: ARG002
        announcing: Announcing | None,  # noqa: ARG002
    ) -> list[str]:
        return []

    def serve(
        self,
        wanted: Sequence[DesiredVip],  # noqa: ARG002
        served: Mapping[str, bool],  # noqa: ARG002
        standby: bool,  # noqa: ARG002
    ) -> list[str]:
        return []

    def settle(self, change: Any) -> list[str]:  # noqa: ARG002
        return []

    def hold(self) -> None:
        """There is nothing to start."""

    def let_go(self) -> list[str]:
        return []

    def revive(self) -> list[str]:
        return []

    def removal(self) -> list[Command]:
        return []

    def sessions(self) -> list[BgpSessionState]:
        return []


@dataclass(frozen=True, slots=True)
class VipPlan:
    """The changes of all owners."""

    changes: Mapping[Announce, VipChange]

    def __bool__(self) -> bool:
        return any(self.changes.values())

    def steps(self, *, before: bool) -> list[ChangeStep]:
        """What it does before the data path changes, or after, for people."""
        return [step for change in self.changes.values() for step in change.steps(before=before)]


class VipOwners:
    """All owners as one: each has the VIPs that are announced its way."""

    def __init__(self, owners: Mapping[Announce, VipOwner[Any]]) -> None:
        self._owners = owners

    def unsupported(self, wanted: Sequence[DesiredVip], announcing: Announcing | None) -> list[str]:
        """As ``VipOwner.unsupported``, and so are the others."""
        return [
            line
            for kind, owner in self._owners.items()
            for line in owner.unsupported(_announced(wanted, kind), announcing)
        ]

    def diff(
        self, host: HostView, wanted: Sequence[DesiredVip], announcing: Announcing | None
    ) -> VipPlan:
        return VipPlan(
            {
                kind: owner.diff(host, _announced(wanted, kind), announcing)
                for kind, owner in self._owners.items()
            }
        )

    def take(self, plan: VipPlan) -> tuple[VipPlan, list[str]]:
        taken: dict[Announce, VipChange] = {}
        failures: list[str] = []
        for kind, change in plan.changes.items():
            taken[kind], failed = self._owners[kind].take(change)
            failures += failed
        return VipPlan(taken), failures

    def serve(
        self, wanted: Sequence[DesiredVip], served: Mapping[str, bool], standby: bool
    ) -> list[str]:
        return [
            line
            for kind, owner in self._owners.items()
            for line in owner.serve(_announced(wanted, kind), served, standby)
        ]

    def announce(self, host: HostView) -> list[str]:
        return [line for owner in self._owners.values() for line in owner.announce(host)]

    def announce_again(self, host: HostView) -> list[str]:
        return [line for owner in self._owners.values() for line in owner.announce_again(host)]

    def release(self, plan: VipPlan) -> list[str]:
        return [
            line
            for kind, change in plan.changes.items()
            for line in self._owners[kind].release(change)
        ]

    def settle(self, plan: VipPlan) -> list[str]:
        return [
            line
            for kind, change in reversed(list(plan.changes.items()))
            for line in self._owners[kind].settle(change)
        ]

    def undo(self, plan: VipPlan) -> None:
        for kind, change in plan.changes.items():
            self._owners[kind].undo(change)

    def hold(self) -> None:
        for owner in self._owners.values():
            owner.hold()

    def let_go(self) -> list[str]:
        return [line for owner in self._owners.values() for line in owner.let_go()]

    def revive(self) -> list[str]:
        return [line for owner in self._owners.values() for line in owner.revive()]

    def removal(self) -> list[Command]:
        return [each for owner in self._owners.values() for each in owner.removal()]

    def sessions(self) -> list[BgpSessionState]:
        return [each for owner in self._owners.values() for each in owner.sessions()]


def _announced(wanted: Sequence[DesiredVip], kind: Announce) -> list[DesiredVip]:
    return [vip for vip in wanted if vip.announce is kind]
