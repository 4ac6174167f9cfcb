"""Packets that are larger than a limit, as an interface received them; and ICMP errors to senders.

A packet socket sees what arrives before nftables does. A filter in the kernel passes only what is
of interest, and a small buffer bounds what a flood of it costs.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

from tula.kernel.packet_filter import Instruction, attach
from tula.model.config import IPAddress
from tula.model.errors import KernelError

_ALL, _SOL_PACKET, _VNET_HEADER, _IGNORE_OUTGOING = 0x0003, 263, 15, 23
_HEADER = struct.Struct("=BBHHHH")
"""struct virtio_net_hdr: flags, type of segmentation, header's length, segments' size, …"""
_ETHERNET = 14
_SNAP = _ETHERNET + 548
"""With its own headers the error has the 576 bytes that RFC 1812, section 4.3.2.3, allows."""
_ROOM = 1 << 16
_MOST = 64
_TYPES = {4: (3, 4), 6: (2, 0)}
"""ICMP: fragmentation needed and DF set (RFC 1191); ICMPv6: packet too big (RFC 4443)."""
_NOTHING: list[Instruction] = [(0x06, 0, 0, 0)]


class LargePacket(NamedTuple):
    """The beginning of a packet, from its IP header on.

    ``segment`` is not 0 if it is an aggregate: the bytes behind the headers that each packet of it
    has on the wire.
    """

    data: bytes
    segment: int


class LargePackets(Protocol):
    """What arrives on one interface."""

    def fileno(self) -> int:
        """Can be read when there are any."""

    def take(self) -> Iterator[LargePacket]:
        """Those that wait, so many at a time."""

    def close(self) -> None:
        """Ends it."""


class KernelLargePackets:
    """IP packets for this machine of more than ``above`` bytes on an interface, by its index.

    Aggregates of more than ``most`` bytes, which bulk traffic is full of, are left out: a sender
    who waits for an answer repeats single packets. Raises KernelError.
    """

    def __init__(self, index: int, above: int, most: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
            attach(self._socket, size_filter(above, most))
            self._socket.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            self._socket.setsockopt(_SOL_PACKET, _VNET_HEADER, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            self._socket.bind((socket.if_indextoname(index), _ALL))
        except OSError as error:
            raise KernelError(f"cannot watch for large packets: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def take(self) -> Iterator[LargePacket]:
        for _ in range(_MOST):
            try:
                data = self._socket.recv(_HEADER.size + _SNAP)
            except OSError:  # none left, or the interface is down
                return
            if len(data) > _HEADER.size + _ETHERNET:
                kind, segment = _HEADER.unpack_from(data)[1], _HEADER.unpack_from(data)[3]
                yield LargePacket(data[_HEADER.size + _ETHERNET :], segment if kind else 0)


def size_filter(above: int, most: int) -> list[Instruction]:
    """Ethernet frames to this machine's MAC address, with IP packets of these sizes."""
    return [
        (0x20, 0, 0, 0xFFFFF004),  # ld the packet's type, SKF_AD_PKTTYPE
        (0x15, 0, 7, 0),  # PACKET_HOST, else drop
        (0x80, 0, 0, 0),  # ld its length
        (0x25, 0, 5, above + _ETHERNET),  # jgt, else drop
        (0x25, 4, 0, most + _ETHERNET),  # jgt: drop
        (0x28, 0, 0, 12),  # ldh the EtherType; a VLAN's tag is none of these
        (0x15, 1, 0, 0x0800),
        (0x15, 0, 1, 0x86DD),  # else drop
        (0x06, 0, 0, _SNAP),
        (0x06, 0, 0, 0),
    ]


class SenderTeller(Protocol):
    """Tells senders what size fits."""

    def tell(self, source: IPAddress | None, sender: IPAddress, mtu: int, quoted: bytes) -> None:
        """Sends one ICMP error; what the kernel refuses is as if it had been lost."""


class KernelSenderTeller:
    """By raw sockets of the network namespace that the calling thread is in."""

    def tell(self, source: IPAddress | None, sender: IPAddress, mtu: int, quoted: bytes) -> None:
        family, protocol = (
            (socket.AF_INET, socket.IPPROTO_ICMP)
            if sender.version == 4
            else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
        )
        try:
            with socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol) as opened:
                attach(opened, _NOTHING)
                if source is not None:
                    opened.bind((str(source), 0))
                opened.sendto(too_big(sender.version, mtu, quoted), (str(sender), 0))
        except OSError:
            return


def too_big(version: int, mtu: int, quoted: bytes) -> bytes:
    """The ICMP error about a packet. ICMPv6's checksum is the kernel's to fill in."""
    kind, code = _TYPES[version]
    rest = struct.pack("!HH", 0, mtu) if version == 4 else struct.pack("!I", mtu)
    checksum = _checksum(bytes([kind, code, 0, 0]) + rest + quoted) if version == 4 else 0
    return struct.pack("!BBH", kind, code, checksum) + rest + quoted


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
