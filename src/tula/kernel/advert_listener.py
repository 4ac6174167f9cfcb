"""Hears VRRP's adverts on an interface: those that come in, before any rule could drop them, and
those that go out, after all rules (packet(7))."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from tula.kernel.packet_filter import attach, protocol_filter
from tula.kernel.packet_sockets import AUXDATA, SOL_PACKET, is_tagged
from tula.model.errors import KernelError

_ALL, _OUTGOING = 0x0003, 4
_VRRP = 112
_ADD_MEMBERSHIP, _MULTICAST = 1, 0
_GROUPS = (bytes.fromhex("01005e000012"), bytes.fromhex("333300000012"))
"""Those of 224.0.0.18 and ff02::12, to which routers of others advertise (RFC 5798, section
5.1)."""
_TIMESTAMP = 35
"""SO_TIMESTAMPNS"""
_MOST = 5000
"""Adverts that are read."""


class HeardAdvert(NamedTuple):
    """An IP packet; ``at`` is when it passed, in seconds since the epoch."""

    packet: bytes
    outgoing: bool
    at: float


class AdvertListener:
    """Listens from when it is made, in the network namespace of the calling thread."""

    def __init__(self, interface: str) -> None:
        """Raises KernelError."""
        self._socket = None
        try:
            # Bound only with its filter: nothing else is to arrive before.
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
            self._socket = opened
            attach(opened, protocol_filter(_VRRP))
            opened.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
            opened.setsockopt(SOL_PACKET, AUXDATA, 1)
            opened.bind((interface, _ALL))
            index = socket.if_nametoindex(interface)
            for group in _GROUPS:
                member = struct.pack("=iHH8s", index, _MULTICAST, len(group), group)
                opened.setsockopt(SOL_PACKET, _ADD_MEMBERSHIP, member)
        except OSError as error:
            self.close()
            raise KernelError(
                f"cannot listen for VRRP's adverts on {interface}: {error.strerror}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Listens no more."""
        if self._socket is not None:
            self._socket.close()

    def heard(self) -> Iterator[HeardAdvert]:
        """All that has passed and was not read yet; does not wait."""
        assert self._socket is not None
        for _ in range(_MOST):
            try:
                data, extra, _, address = self._socket.recvmsg(2048, 256)
            except BlockingIOError:
                return
            except OSError:  # the interface went down (ENETDOWN)
                continue
            if not is_tagged(extra):
                yield HeardAdvert(data, address[2] == _OUTGOING, _passed(extra))


def _passed(extra: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _TIMESTAMP:
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            return float(seconds) + float(nanoseconds) / 1e9
    return 0.0
