"""The port: VIPs as the engine sees them, whoever puts them there and announces them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tula.dataplane.port import ChangeStep
from tula.model.desired import Announce, DesiredVip
from tula.model.host import HostView, OwnedAddress


@dataclass(frozen=True, slots=True)
class VipChange:
    """A difference; false when there is none."""

    add: tuple[OwnedAddress, ...] = ()
    remove: tuple[OwnedAddress, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


class VipOwner(Protocol):
    """One way to own VIPs.

    ``diff`` is pure. The rest returns what the machine refused, a line each, and does the others
    all the same; what is not done, the next ``diff`` finds, or the next ``announce`` does.
    """

    def diff(
        self, host: HostView, wanted: Sequence[DesiredVip], serving: Collection[str]
    ) -> VipChange:
        """What must change so that this owner has the VIPs in ``wanted`` and no others.

        ``serving`` are the services that can serve at all.
        """

    def take(self, change: VipChange) -> tuple[VipChange, list[str]]:
        """Puts new VIPs there, without a word to the network; what was done of it, and failures."""

    def announce(self, host: HostView) -> list[str]:
        """Tells the network of VIPs that were taken. Packets come from then on, so the data path
        has to be ready."""

    def announce_again(self, host: HostView) -> list[str]:
        """Tells the network of all VIPs that are there: one announcement may be lost, or come
        before anyone can hear it."""

    def release(self, change: VipChange) -> list[str]:
        """Takes back what goes. Until then its packets have to find their rules."""

    def undo(self, change: VipChange) -> None:
        """Takes ``take`` back, as far as it can be."""


@dataclass(frozen=True, slots=True)
class VipPlan:
    """The changes of all owners."""

    changes: Mapping[Announce, VipChange]

    def __bool__(self) -> bool:
        return any(self.changes.values())

    def steps(self, *, before: bool) -> list[ChangeStep]:
        """What it does before the data path changes, or after, for people."""
        verb = "add" if before else "remove"
        return [
            ChangeStep(verb, "address", str(owned.address), f"on {owned.interface}")
            for change in self.changes.values()
            for owned in (change.add if before else change.remove)
        ]


class VipOwners:
    """All owners as one: each has the VIPs that are announced its way."""

    def __init__(self, owners: Mapping[Announce, VipOwner]) -> None:
        self._owners = owners

    def diff(
        self, host: HostView, wanted: Sequence[DesiredVip], serving: Collection[str]
    ) -> VipPlan:
        """As ``VipOwner.diff``, and so are the others."""
        return VipPlan(
            {
                kind: owner.diff(host, [vip for vip in wanted if vip.announce is kind], serving)
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

    def undo(self, plan: VipPlan) -> None:
        for kind, change in plan.changes.items():
            self._owners[kind].undo(change)
