"""Announces VIPs again: when they come, when a carrier does, and for some time after that.

One announcement may be lost, and at least two are due (RFC 5227, section 2.3; RFC 4861, section
7.2.6). A switch that runs spanning tree passes nothing for 30 s after a carrier came. The writer
sends the first one, as soon as the data path is ready; these are beside it, and nothing waits for
them. A daemon that starts says nothing of what was there: another balancer may have the VIPs now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from tula.daemon.snapshot import Snapshot
from tula.kernel.announce import Announcer
from tula.kernel.network import Network
from tula.model.errors import KernelError
from tula.model.host import HostView, Link, OwnedAddress

AFTER = (0.0, 1.0, 2.0, 4.0, 15.0, 31.0)
"""Seconds from when a VIP can first be heard of to its announcements."""

_Seen = tuple[int, bytes, int]
"""A link's index, its MAC address, and how many carriers it has seen."""


class AnnouncementSchedule:
    """Which VIPs are due when. Pure: ``now`` is in seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._seen: dict[OwnedAddress, _Seen] = {}
        self._due: dict[OwnedAddress, tuple[float, ...]] = {}

    def start(self, held: Iterable[OwnedAddress], links: Mapping[str, Link]) -> None:
        """What is there already, and no news."""
        self._seen = _seen(held, links)

    def follow(self, held: Iterable[OwnedAddress], links: Mapping[str, Link], now: float) -> None:
        """What is held from now on, and where. What is new there is due at once, and again."""
        seen = _seen(held, links)
        for owned, what in seen.items():
            if self._seen.get(owned) != what:
                self._due[owned] = tuple(now + after for after in AFTER)
        self._due = {owned: due for owned, due in self._due.items() if owned in seen}
        self._seen = seen

    def next(self) -> float | None:
        """When the next is due; None when none is."""
        return min((due[0] for due in self._due.values()), default=None)

    def take(self, now: float) -> list[OwnedAddress]:
        """Those that are due by now; late ones are not made up for."""
        taken = [owned for owned, due in self._due.items() if due[0] <= now]
        for owned in taken:
            left = tuple(at for at in self._due.pop(owned) if at > now)
            if left:
                self._due[owned] = left
        return taken


def _seen(held: Iterable[OwnedAddress], links: Mapping[str, Link]) -> dict[OwnedAddress, _Seen]:
    """Those that somebody can hear of."""
    there = ((owned, links.get(owned.interface)) for owned in held)
    return {
        owned: (link.index, link.mac, link.carriers)
        for owned, link in there
        if link is not None and link.up and link.carrier
    }


class Announcements:
    """Follows what the writer publishes, and sends from a thread of its own."""

    def __init__(self, network: Network, announcer: Announcer) -> None:
        self._network = network
        self._announcer = announcer
        self._schedule = AnnouncementSchedule()
        self._host: HostView | None = None
        self._wake = asyncio.Event()

    def follow(self, snapshot: Snapshot) -> None:
        """Looks for VIPs and carriers that have come."""
        applied = snapshot.applied
        if applied is None or applied.host is self._host:
            return
        held = [OwnedAddress(vip.address, vip.interface) for vip in applied.routes.held]
        if self._host is None:
            # This reading is from before the change that it was for.
            there = set(applied.host.owned)
            self._schedule.start([owned for owned in held if owned in there], applied.host.links)
        self._host = applied.host
        self._schedule.follow(held, applied.host.links, time.monotonic())
        self._wake.set()

    async def run(self) -> None:
        """Sends what is due until it is cancelled."""
        while True:
            self._wake.clear()
            due = self._schedule.take(time.monotonic())
            if due:
                await asyncio.to_thread(self._send, due)
            upcoming = self._schedule.next()
            wait = None if upcoming is None else max(0.0, upcoming - time.monotonic())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    def _send(self, due: list[OwnedAddress]) -> None:
        """What is not there by now, or not any more, is nobody's to announce."""
        with suppress(KernelError):
            host = self._network.view(())
            there = set(host.owned)
            for owned in due:
                link = host.links.get(owned.interface)
                if owned in there and link is not None:
                    # A link that refuses one may take another; the next round is soon.
                    with suppress(KernelError):
                        self._announcer.announce(owned.address, link)
