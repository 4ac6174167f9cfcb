"""VIPs that Tula itself puts on an interface, and announces: by gratuitous ARP (RFC 5227) and
unsolicited neighbour advertisements (RFC 4861)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tula.dataplane.port import ChangeStep
from tula.kernel.announce import Announcer
from tula.kernel.network import Network
from tula.model.announcing import Announcing
from tula.model.desired import DesiredVip
from tula.model.errors import KernelError
from tula.model.host import HostView, OwnedAddress
from tula.vip.owner import QuietOwner

_HAND_OVER = 3.0
"""Seconds that an engine may take to remove what it no longer has."""
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class AddressChange:
    """Addresses of interfaces that come and go."""

    add: tuple[OwnedAddress, ...] = ()
    remove: tuple[OwnedAddress, ...] = ()
    taken_over: tuple[OwnedAddress, ...] = ()
    """those of ``add`` that an engine has there, and removes by itself"""

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)

    def steps(self, *, before: bool) -> list[ChangeStep]:
        verb = "add" if before else "remove"
        return [
            ChangeStep(verb, "address", str(owned.address), f"on {owned.interface}")
            for owned in (self.add if before else self.remove)
        ]


class StaticVips(QuietOwner):
    """The addresses of one network namespace that are marked as Tula's."""

    def __init__(self, network: Network, announcer: Announcer) -> None:
        self._network = network
        self._announcer = announcer
        self._unannounced: set[OwnedAddress] = set()

    def diff(
        self,
        host: HostView,
        wanted: Sequence[DesiredVip],
        announcing: Announcing | None,  # noqa: ARG002
    ) -> AddressChange:
        have = host.owned
        want = [OwnedAddress(vip.address, vip.interface) for vip in wanted]
        add = tuple(owned for owned in want if owned not in have)
        engines = {
            OwnedAddress(held.address.ip, held.interface) for held in host.addresses if held.engine
        }
        return AddressChange(
            add=add,
            taken_over=tuple(owned for owned in add if owned in engines),
            remove=tuple(owned for owned in have if owned not in set(want)),
        )

    def take(self, change: AddressChange) -> tuple[AddressChange, list[str]]:
        added: list[OwnedAddress] = []
        failures: list[str] = []
        for owned in change.add:
            try:
                self._network.add_address(owned)
                added.append(owned)
            except KernelError as error:
                failures.append(str(error))
        self._unannounced.update(added)
        return replace(change, add=tuple(added)), failures

    def announce(self, host: HostView) -> list[str]:
        failures: list[str] = []
        for owned in sorted(self._unannounced, key=str):
            failed = self._announce(owned, host)
            failures += failed
            if not failed:
                self._unannounced.discard(owned)
        return failures

    def announce_again(self, host: HostView) -> list[str]:
        return [line for owned in host.owned for line in self._announce(owned, host)]

    def _announce(self, owned: OwnedAddress, host: HostView) -> list[str]:
        link = host.links.get(owned.interface)
        if link is None:
            return []  # the address went with it
        try:
            self._announcer.announce(owned.address, link)
        except KernelError as error:
            return [str(error)]
        return []

    def release(self, change: AddressChange) -> list[str]:
        failures: list[str] = []
        for owned in change.remove:
            self._unannounced.discard(owned)
            try:
                self._network.remove_address(owned)
            except KernelError as error:
                failures.append(str(error))
        return failures

    def settle(self, change: AddressChange) -> list[str]:
        """The kernel has an address once: what an engine removes was also Tula's."""
        end = time.monotonic() + _HAND_OVER
        left = set(change.taken_over)
        while left:
            try:
                for owned in left:
                    self._network.add_address(owned)
                left -= set(self._network.view(()).owned)
            except KernelError as error:
                return [str(error)]
            if left and time.monotonic() > end:
                return [
                    f"{owned.address} on {owned.interface} is somebody else's" for owned in left
                ]
            if left:
                time.sleep(_POLL)
        return []

    def undo(self, change: AddressChange) -> None:
        self.release(AddressChange(remove=change.add))
