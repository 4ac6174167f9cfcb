"""A VRRP router of few words: sends the adverts that it is told to, whatever it hears."""

from __future__ import annotations

import socket
import struct
import threading
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from tula.lab import Host


def advert(
    addresses: tuple[str, ...] = ("169.254.84.84",),
    router_id: int = 84,
    priority: int = 250,
    version: int = 3,
    interval: float = 0.1,
    authentication: int = 0,
) -> bytes:
    """VRRP's part of an advert; the checksum is left out, since the doctor does not look at it."""
    listed = [ip_address(text).packed for text in addresses]
    head = struct.pack("!BBBB", version << 4 | 1, router_id, priority, len(listed))
    if version == 2:
        timing = struct.pack("!BB", authentication, round(interval) or 1)
        return head + timing + bytes(2) + b"".join(listed) + bytes(8)
    return head + struct.pack("!H", round(interval * 100)) + bytes(2) + b"".join(listed)


class Advertiser:
    """Sends an advert from a host to an address, some thirty times a second: more often than the
    interval in it, so that enough pass on a busy machine."""

    def __init__(self, host: Host, to: str, body: bytes, source: str = "") -> None:
        six = ip_address(to).version == 6
        self._socket = host.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 112)
        if source:
            self._socket.bind((source, 0))
        if ip_address(to).is_multicast:
            out = host.index("eth0")
            if six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, out)
            else:
                mreqn = bytes(8) + struct.pack("=i", out)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, mreqn)
        self._to, self._body = to, body
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._end.wait(0.03):
            try:
                self._socket.sendto(self._body, (self._to, 0))
            except PermissionError:  # a rule of the host's own drops it, which is what is tested
                continue
