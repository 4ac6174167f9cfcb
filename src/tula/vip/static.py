"""VIPs that Tula itself puts on an interface, and announces: by gratuitous ARP (RFC 5227) and
unsolicited neighbour advertisements (RFC 4861)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tula.kernel.announce import Announcer
from tula.kernel.network import Network
from tula.model.desired import DesiredVip
from tula.model.errors import KernelError
from tula.model.host import HostView, OwnedAddress
from tula.vip.owner import VipChange


class StaticVips:
    """The addresses of one network namespace that are marked as Tula's."""

    def __init__(self, network: Network, announcer: Announcer) -> None:
        self._network = network
        self._announcer = announcer
        self._unannounced: set[OwnedAddress] = set()

    def diff(
        self,
        host: HostView,
        wanted: Sequence[DesiredVip],
        serving: Collection[str],  # noqa: ARG002  (they stay, whoever serves)
    ) -> VipChange:
        have = host.owned
        want = [OwnedAddress(vip.address, vip.interface) for vip in wanted]
        return VipChange(
            add=tuple(owned for owned in want if owned not in have),
            remove=tuple(owned for owned in have if owned not in set(want)),
        )

    def take(self, change: VipChange) -> tuple[VipChange, list[str]]:
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

    def release(self, change: VipChange) -> list[str]:
        failures: list[str] = []
        for owned in change.remove:
            self._unannounced.discard(owned)
            try:
                self._network.remove_address(owned)
            except KernelError as error:
                failures.append(str(error))
        return failures

    def undo(self, change: VipChange) -> None:
        self.release(VipChange(remove=change.add))
