"""Raw frames: what an interface saw, and sending crafted ones."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from tula.lab.guard import LabError
from tula.lab.host import Host
from tula.lab.wait import wait_until

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_SO_RCVBUFFORCE = 33
_OUTGOING = 4
_VLAN_VALID = 0x10
_VLAN_TPID_VALID = 0x40
_LONGEST = 1 << 18


class Frame(NamedTuple):
    """One frame on the wire, from the destination MAC on."""

    data: bytes
    outgoing: bool
    """Sent by the host, not received."""


class Capture:
    """Collects the frames of one interface, in both directions, from its start on.

    The kernel queues them on a packet socket (64 MB); they are read when asked for. A received
    frame is queued before the interface's nftables ingress hook, a sent one behind its egress
    hook. Aggregates (GRO, TSO) appear as they pass: see ``set_offload`` for packets of wire size.
    ::

        with Capture(backend, "eth0") as capture:
            udp_ask(client, vip, 53)
        frames = capture.frames(outgoing=False)
    """

    def __init__(self, host: Host, ifname: str = "eth0") -> None:
        """Describe it; entering it starts it."""
        self.host = host
        self.ifname = ifname
        self._frames: list[Frame] = []
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Open the socket: frames count from now on."""
        # Protocol 0 receives nothing until bind names interface and protocol together.
        opened = self.host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        opened.setblocking(False)
        opened.bind((self.ifname, _ETH_P_ALL))
        self._socket = opened
        return self.host.owns(self)

    def stop(self) -> None:
        """Read what is queued and close; the frames stay available."""
        if self._socket is not None:
            try:
                self._drain()
            finally:
                self.close()

    def close(self) -> None:
        """Close without reading; the lab does so with what a failed test left open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def frames(self, outgoing: bool | None = None) -> list[bytes]:
        """All frames so far, or only those sent (True) or received (False).

        Multicast housekeeping of IPv6 (MLD reports, router solicitations) is left out.
        """
        return [
            frame.data
            for frame in self.all()
            if (outgoing is None or frame.outgoing is outgoing) and not _is_noise(frame.data)
        ]

    def all(self) -> list[Frame]:
        """Everything so far, with its direction and the noise."""
        if self._socket is not None:
            self._drain()
        return self._frames

    def wait(
        self,
        condition: Callable[[bytes], bool],
        count: int = 1,
        timeout: float = 3.0,
        outgoing: bool | None = None,
    ) -> list[bytes]:
        """Wait for ``count`` frames that meet the condition, and return those."""

        def found() -> list[bytes]:
            hits = [frame for frame in self.frames(outgoing) if condition(frame)]
            return hits if len(hits) >= count else []

        where = f"{self.host.name} {self.ifname}"
        return wait_until(found, timeout, f"{count} such frames at {where}")

    def clear(self) -> None:
        """Forget the frames so far."""
        self.all()
        self._frames = []

    def _drain(self) -> None:
        assert self._socket is not None
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(_LONGEST, 64)
            except BlockingIOError:
                break
            for level, kind, payload in ancillary:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                    data = _with_tag(data, payload)
            self._frames.append(Frame(data, address[2] == _OUTGOING))
        lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        if lost:
            raise LabError(f"the capture at {self.host.name} {self.ifname} lost {lost} frames")


def send_frame(host: Host, ifname: str, *frames: bytes) -> None:
    """Send crafted frames, each from the destination MAC on."""
    with host.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.bind((ifname, 0))
        for frame in frames:
            opened.send(frame)


def _with_tag(data: bytes, auxiliary: bytes) -> bytes:
    """Put the VLAN tag back, which the kernel keeps beside the frame."""
    status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", auxiliary[:20])
    if not status & _VLAN_VALID:
        return data
    ethertype = protocol if status & _VLAN_TPID_VALID else 0x8100
    return data[:12] + struct.pack("!HH", ethertype, tag) + data[12:]


def _is_noise(data: bytes) -> bool:
    """Whether it is an MLD report or a router solicitation."""
    if len(data) < 63 or data[12:14] != b"\x86\xdd":
        return False
    if data[20] == 0 and data[54] == 58:  # hop-by-hop options, then ICMPv6
        return data[62] in (131, 132, 143)
    return data[20] == 58 and data[54] == 133
