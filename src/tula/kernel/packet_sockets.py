"""Packets that are sent and received past the machine's own network stack, for the doctor.

A packet socket receives what comes in before any nftables hook and reverse-path filter, and sends
to a given MAC; packets that the machine has to route go through raw sockets (raw(7), packet(7)).
Nothing has to be set up, and nothing is left behind.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tula.kernel.packet_filter import answers_filter, attach
from tula.model.config import IPAddress
from tula.model.errors import KernelError

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD

_ALL = 0x0003
SOL_PACKET, AUXDATA = 263, 8
_IGNORE_OUTGOING = 23
_VLAN_VALID = 0x10
_TO_US, _OUTGOING, _LOOPBACK = 0, 4, 5
_RCVBUFFORCE = 33
_BUFFER = 1 << 23
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PROBE = 3
"""IP_PMTUDISC_PROBE: don't fragment, and take the interface's MTU, not one learned before."""


class ReceivedPacket(NamedTuple):
    """One packet, from its network header on. ``to_us``: its MAC was that of the interface."""

    interface: str
    mac: bytes
    protocol: int
    data: bytes
    to_us: bool
    at: float


class PacketSockets(Protocol):
    """Sends and receives packets."""

    def send_link(self, interface: str, mac: bytes, protocol: int, packet: bytes) -> None:
        """Sends a packet to that MAC. Raises OSError."""

    def send_routed(self, packet: bytes, to: IPAddress) -> None:
        """Sends an IP packet, header included, by the machine's routes and output rules. Raises
        OSError; PermissionError when a rule dropped it."""

    def receive(self, seconds: float) -> list[ReceivedPacket]:
        """What came in; waits at most so long for the first."""


class KernelPacketSockets:
    """The network namespace of the thread that made it. Receives ARP, packets to ``own``
    addresses and packets from ``sources``."""

    def __init__(self, own: Iterable[IPAddress], sources: Iterable[IPAddress]) -> None:
        try:
            self._packet = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ALL)
            )
            attach(self._packet, answers_filter(own, sources))
            self._packet.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
            self._packet.setsockopt(SOL_PACKET, AUXDATA, 1)
            self._packet.setsockopt(SOL_PACKET, _IGNORE_OUTGOING, 1)
            self._raw = {4: _raw_socket(4), 6: _raw_socket(6)}
        except OSError as error:
            raise KernelError(f"cannot open packet sockets: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for opened in (self._packet, *self._raw.values()):
            if opened is not None:
                opened.close()

    def send_link(self, interface: str, mac: bytes, protocol: int, packet: bytes) -> None:
        self._packet.sendto(packet, (interface, protocol, 0, 0, mac))

    def send_routed(self, packet: bytes, to: IPAddress) -> None:
        opened = self._raw[to.version]
        if opened is None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        opened.sendto(packet, (str(to), 0))

    def receive(self, seconds: float) -> list[ReceivedPacket]:
        select.select([self._packet], [], [], max(seconds, 0.0))
        received: list[ReceivedPacket] = []
        while len(received) < 1000:  # the caller has other work
            try:
                data, extra, _, address = self._packet.recvmsg(2048, 64)
            except BlockingIOError:
                break
            except OSError:  # an interface went down (ENETDOWN); the others work
                continue
            name, protocol, kind, _, mac = address
            if kind in (_OUTGOING, _LOOPBACK) or is_tagged(extra):
                continue
            received.append(
                ReceivedPacket(name, bytes(mac), protocol, data, kind == _TO_US, time.monotonic())
            )
        return received


def _raw_socket(version: int) -> socket.socket | None:
    """One for whole packets; None where the kernel is without that version (ipv6.disable=1)."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        opened = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return None
        raise
    opened.setsockopt(*_MTU_DISCOVER[version], _PROBE)
    return opened


def is_tagged(extra: Iterable[tuple[int, int, bytes]]) -> bool:
    """Whether it has a VLAN tag: the VLAN's own interface receives it again, without."""
    return any(
        level == SOL_PACKET
        and kind == AUXDATA
        and bool(struct.unpack_from("I", data)[0] & _VLAN_VALID)
        for level, kind, data in extra
    )
