"""Makes a change: devices, addresses, rules, announcements, each in its place."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tula.dataplane.nft.transaction import DeleteTable, Transaction, in_turn
from tula.engine.change import Change, Prepared
from tula.engine.reader import Adapters
from tula.model.desired import OwnedAddress
from tula.model.errors import KernelError
from tula.model.host import HostView
from tula.model.problem import Problem


class Committer:
    """Methods raise KernelError; ``commit`` then has left all as it was before."""

    def __init__(self, kernel: Adapters) -> None:
        self._kernel = kernel

    def commit(
        self,
        change: Change,
        host: HostView,
        *,
        fresh: bool = False,
        refused: list[KernelError] | None = None,
    ) -> tuple[OwnedAddress, ...]:
        """Devices, addresses, rules: each is there before what sends packets to it.

        But where there was no table (``fresh``), rules come before addresses: after a reboot
        clients and routers still send to the VIPs, and the host's own stack would reset their
        connections. With ``refused``, addresses that cannot be added are told there, and no
        reason to give up. Returns the addresses that were added.
        """
        added: list[OwnedAddress] = []
        changed, gone = in_turn(change.transaction)
        if change.tunnels:
            self._kernel.tunnels.prepare(change.tunnels, host.tunnels)
        try:
            if fresh:
                self._kernel.nftables.run(changed)
            for address in change.add:
                try:
                    self._kernel.network.add_address(address)
                    added.append(address)
                except KernelError as error:
                    if refused is None:
                        raise
                    refused.append(error)
            if not fresh:
                self._kernel.nftables.run(changed)
        except KernelError:
            for address in added:
                self._kernel.network.remove_address(address)
            if fresh and self._kernel.nftables.exists():
                self._kernel.nftables.run((DeleteTable(),))
            if change.tunnels:
                self._kernel.tunnels.undo(change.tunnels, host.tunnels)
            raise
        if gone:
            self.drop(gone)
        return tuple(added)

    def drop(self, gone: Transaction) -> None:
        """What no rule names any more. All is done without it: what the kernel keeps of it, no
        packet sees, and the next comparison does."""
        with suppress(KernelError):
            self._kernel.nftables.run(gone)

    def commit_what_can_be(self, prepared: Prepared) -> Prepared:
        """One VIP that an interface does not take must not keep the others from their service."""
        refused: list[KernelError] = []
        change, host = prepared.change, prepared.applied.host
        added = self.commit(change, host, fresh=prepared.have is None, refused=refused)
        if not refused:
            return prepared
        problems = tuple(Problem(("services",), str(error)) for error in refused)
        return replace(
            prepared,
            change=replace(change, add=added),
            problems=prepared.problems + problems,
        )

    def remove(self, change: Change) -> None:
        """After the rules: while a VIP is still taken, its packets belong to them."""
        for address in change.remove:
            self._kernel.network.remove_address(address)
        if change.tunnels:
            self._kernel.tunnels.finish(change.tunnels)

    def announce(self, prepared: Prepared) -> None:
        """Only now: packets that come for a VIP must find the rules, not the host's own stack."""
        for owned in prepared.change.add:
            link = prepared.applied.host.links[owned.interface]
            self._kernel.announcer.announce(owned.address, link)
