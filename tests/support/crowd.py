"""Very many clients at once, made of raw packets: which backend each packet of theirs goes to.

Their transport checksum is wrong: the balancer forwards them, and backends have no work.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from time import monotonic
from typing import NamedTuple

from tula.lab import Host, Network, wait_until

SYN, ACK, FIN, RST = 2, 16, 1, 4
FIRST = {4: 0x0AC80000, 6: 0x20010DB8 << 96 | 0x200 << 64}
"""The first client: 10.200.0.0 and 2001:db8:0:200::; nobody has these, no answer finds a way."""
_ETH_P_ALL, _SO_RCVBUFFORCE = 0x0003, 33
_AT_ONCE = 200
"""Packets that are under way at a time: fewer than the queues of a busy machine hold."""


class Packet(NamedTuple):
    """One packet of a client's: by number and port to a VIP's port; ``flags`` of TCP, 0: UDP."""

    client: int
    sport: int
    port: int = 80
    flags: int = SYN


class Crowd:
    """Clients of one IP version behind a host. ``step``: how far their addresses are apart."""

    def __init__(
        self,
        network: Network,
        sender: Host,
        vip: str,
        to: Host | None = None,
        step: int = 1,
        ifname: str = "eth0",
    ) -> None:
        self._macs = b""
        self._sender = sender
        self.ifname = ifname
        self.through(to or network.lb)
        self._vip = ip_address(vip)
        self._step = step
        self._backends = network.backends
        self._ears: dict[str, socket.socket] = {}
        self._mouth: socket.socket | None = None
        self.ports = iter(range(1024, 65536))
        self.last: list[Packet] = []
        """The first packet of each flow of ``connect``, the last time."""

    def through(self, balancer: Host) -> None:
        """What is sent from now on comes to this balancer."""
        self._macs = bytes.fromhex(
            (balancer.mac() + self._sender.mac(self.ifname)).replace(":", "")
        )

    @contextmanager
    def here(self) -> Iterator[Crowd]:
        """Hears what arrives at all backends, for the block."""
        with ExitStack() as stack:
            for host in (self._sender, *self._backends):
                opened = stack.enter_context(host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                if host is self._sender:
                    opened.bind((self.ifname, 0))
                    self._mouth = opened
                    continue
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
                opened.setblocking(False)
                opened.bind(("eth0", _ETH_P_ALL))
                self._ears[host.name] = opened
            yield self

    def address(self, client: int) -> str:
        return str(ip_address(self._source(client)))

    def send(self, packets: Iterable[Packet]) -> dict[Packet, str]:
        """Sends each until it arrives; which backend got it."""
        left, found = list(packets), dict[Packet, str]()
        for at in range(0, len(left), _AT_ONCE):
            found |= self._deliver(left[at : at + _AT_ONCE])
        return found

    def connect(
        self, clients: Iterable[int], times: int = 1, port: int = 80, *, udp: bool = False
    ) -> dict[int, set[str]]:
        """So many new connections of each client, whose SYN and ACK go to one backend each."""
        sports = [next(self.ports) for _ in range(times)]
        flags = 0 if udp else SYN
        first = [Packet(c, sport, port, flags) for c in clients for sport in sports]
        self.last = first
        found = self.send(first)
        if not udp:
            second = self.send(packet._replace(flags=ACK) for packet in first)
            assert {p._replace(flags=SYN): name for p, name in second.items()} == found
        backends: dict[int, set[str]] = {}
        for packet, name in found.items():
            backends.setdefault(packet.client, set()).add(name)
        return backends

    def backend_of(self, clients: Sequence[int], port: int = 80, *, udp: bool = False) -> list[str]:
        """Where one new connection of each client goes."""
        found = self.connect(clients, 1, port, udp=udp)
        return [next(iter(found[client])) for client in clients]

    def _deliver(self, packets: list[Packet]) -> dict[Packet, str]:
        found: dict[Packet, str] = {}
        wanted = set(packets)
        self._drain()
        sent_at = 0.0

        def all_there() -> bool:
            nonlocal sent_at
            found.update((p, name) for p, name in self._drain() if p in wanted)
            # What a busy machine dropped is sent again, as clients do.
            if len(found) < len(wanted) and monotonic() - sent_at > 1:
                sent_at = monotonic()
                assert self._mouth is not None
                for packet in wanted - found.keys():
                    self._mouth.send(self._frame(packet))
            return len(found) == len(wanted)

        wait_until(all_there, timeout=60, what="packets at backends")
        return found

    def _drain(self) -> list[tuple[Packet, str]]:
        seen = []
        for name, ear in self._ears.items():
            with suppress(BlockingIOError):
                while True:
                    packet = self._parse(ear.recv(256))
                    if packet is not None:
                        seen.append((packet, name))
        return seen

    def _parse(self, frame: bytes) -> Packet | None:
        six = self._vip.version == 6
        if frame[12:14] != (b"\x86\xdd" if six else b"\x08\x00"):
            return None
        source, target, protocol, at = (
            (frame[22:38], frame[38:54], frame[20], 54)
            if six
            else (frame[26:30], frame[30:34], frame[23], 34)
        )
        if target != self._vip.packed or protocol not in (6, 17):
            return None
        client = (int.from_bytes(source, "big") - FIRST[self._vip.version]) // self._step
        sport, port = struct.unpack_from("!HH", frame, at)
        return Packet(client, sport, port, frame[at + 13] if protocol == 6 else 0)

    def _frame(self, packet: Packet) -> bytes:
        source = self._source(packet.client)
        number = 6 if packet.flags else 17
        ports = struct.pack("!HH", packet.sport, packet.port)
        if packet.flags:
            transport = ports + struct.pack("!IIBBHHH", 1, 0, 0x50, packet.flags, 1024, 0xBAD, 0)
        else:
            transport = ports + struct.pack("!HH8x", 16, 0xBAD)
        if len(source) == 16:
            ip = struct.pack("!IHBB", 6 << 28, len(transport), number, 64)
            return self._macs + b"\x86\xdd" + ip + source + self._vip.packed + transport
        head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(transport), 0, 0, 64, number)
        total = sum(struct.unpack("!9H", head + source + self._vip.packed))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        ip = head + struct.pack("!H", ~total & 0xFFFF) + source + self._vip.packed
        return self._macs + b"\x08\x00" + ip + transport

    def _source(self, client: int) -> bytes:
        number = FIRST[self._vip.version] + client * self._step
        return number.to_bytes(4 if self._vip.version == 4 else 16, "big")
