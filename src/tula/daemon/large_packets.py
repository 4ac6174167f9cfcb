"""Tells clients whose packets are too large for the link to the backends, as a router would.

Only while a listed interface has a larger MTU than one that leads to backends. The data path hands
such packets on, and the interface or the next switch drops them; path MTU discovery (RFC 1191, RFC
8201) needs somebody who says so. UDP senders that allow fragmentation then fragment themselves.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from tula.daemon.snapshot import Snapshot
from tula.kernel.large_packets import LargePacket, LargePackets, SenderTeller
from tula.model.config import IPAddress
from tula.model.host import HostView
from tula.model.stats import TOO_LARGE, Count
from tula.plan.packet_sizes import SizeLimits, plan_size_limits
from tula.plan.probes import Sources

_PAUSE = 0.05
"""Seconds after each look: however many arrive, this takes little of the daemon's time."""
_EACH, _ALL, _CLIENTS = 0.25, 100.0, 4096
"""Seconds between two errors to one client; errors a second to all; clients remembered."""
_TCP, _UDP, _FRAGMENT = 6, 17, 44

Listen = Callable[[int, int, int], LargePackets]
"""To an interface, by its index, for packets of sizes between two. Raises KernelError."""


@dataclass(frozen=True, slots=True)
class SeenPacket:
    """A packet of which ``size`` bytes are on the wire at once, IP header included."""

    source: IPAddress
    destination: IPAddress
    protocol: int
    port: int
    size: int


def parse_packet(packet: LargePacket) -> SeenPacket | None:
    """TCP and UDP with their ports; None for all else, later fragments too."""
    data = packet.data
    try:
        if data[0] >> 4 == 4:
            at, protocol = (data[0] & 15) * 4, data[9]
            source, destination = data[12:16], data[16:20]
            size: int = struct.unpack_from("!H", data, 2)[0]
            if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
                return None
        else:
            at, protocol = 40, data[6]
            source, destination = data[8:24], data[24:40]
            size = 40 + struct.unpack_from("!H", data, 4)[0]
            if protocol == _FRAGMENT:
                at, protocol = 48, data[40]
                if struct.unpack_from("!H", data, 42)[0] & 0xFFF8:
                    return None
        if protocol not in (_TCP, _UDP):
            return None
        if packet.segment:
            size = at + packet.segment + ((data[at + 12] >> 4) * 4 if protocol == _TCP else 8)
        port: int = struct.unpack_from("!H", data, at + 2)[0]
    except (IndexError, struct.error):
        return None
    return SeenPacket(ip_address(source), ip_address(destination), protocol, port, size)


class Pace:
    """How often senders are told. Pure: ``now`` is in seconds."""

    def __init__(self) -> None:
        self._last: dict[IPAddress, float] = {}
        self._budget, self._at = _ALL, 0.0

    def allows(self, client: IPAddress, now: float) -> bool:
        """Whether an error to this client may be sent now; counts it."""
        self._budget = min(_ALL, self._budget + (now - self._at) * _ALL)
        self._at = now
        if self._budget < 1 or now - self._last.get(client, -_EACH) < _EACH:
            return False
        if len(self._last) >= _CLIENTS:
            self._last.clear()
        self._last[client] = now
        self._budget -= 1
        return True


class LargePacketWatch:
    """Follows what the writer publishes; listens where larger packets can arrive."""

    def __init__(self, listen: Listen, teller: SenderTeller) -> None:
        self._listen = listen
        self._teller = teller
        self._host: HostView | None = None
        self._limits = SizeLimits()
        self._sources: dict[int, IPAddress | None] = {}
        self._pace = Pace()
        self._changed = asyncio.Event()
        self._opened: list[LargePackets] = []
        self._count = Count()

    @property
    def counters(self) -> Mapping[str, Count]:
        """What was seen of packets that are too large; nothing where none can arrive."""
        return {TOO_LARGE: self._count} if self._limits.arrivals or self._count.packets else {}

    def follow(self, snapshot: Snapshot) -> None:
        """Takes the limits of what was applied."""
        applied = snapshot.applied
        if applied is None or applied.host is self._host:
            return
        self._host = applied.host
        limits = plan_size_limits(applied.config, applied.host, applied.routes.hops)
        sources = Sources(applied.config, applied.host)
        self._sources = {version: sources.to(None, version) for version in (4, 6)}
        if limits.arrivals != self._limits.arrivals:
            self._changed.set()
        self._limits = limits

    async def run(self) -> None:
        """Until it is cancelled. Raises KernelError."""
        try:
            while True:
                self._changed.clear()
                self._close()
                for index, (smallest, own) in self._limits.arrivals.items():
                    opened = self._listen(index, smallest, own)
                    self._opened.append(opened)
                    self._hear(opened)
                await self._changed.wait()
        finally:
            self._close()

    def _close(self) -> None:
        for opened in self._opened:
            asyncio.get_running_loop().remove_reader(opened.fileno())
            opened.close()
        self._opened = []

    def _hear(self, opened: LargePackets) -> None:
        """From now on; not if it was closed meanwhile."""
        if opened in self._opened:
            asyncio.get_running_loop().add_reader(opened.fileno(), self._heard, opened)

    def _heard(self, opened: LargePackets) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(opened.fileno())
        for packet in opened.take():
            self._judge(packet)
        loop.call_later(_PAUSE, self._hear, opened)

    def _judge(self, packet: LargePacket) -> None:
        seen = parse_packet(packet)
        if seen is None:
            return
        limit = self._limits.of(seen.destination, seen.protocol, seen.port)
        if limit is None or seen.size <= limit or seen.source.is_multicast:
            return
        self._count += Count(1, seen.size)
        if self._pace.allows(seen.source, time.monotonic()):
            source = self._sources.get(seen.source.version)
            self._teller.tell(source, seen.source, limit, packet.data)
