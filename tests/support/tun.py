"""Two tun interfaces of hosts, and what carries packets between them."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
from types import TracebackType
from typing import Self

from tula.lab import Host

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_LARGEST = 65536


class TunnelByHand:
    """A point-to-point link without an Ethernet header between two hosts, ``tun0`` on both."""

    def __init__(self, *hosts: Host) -> None:
        self._files = [_make(host) for host in hosts]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        for file in self._files:
            os.close(file)

    def _carry(self) -> None:
        there = {self._files[0]: self._files[1], self._files[1]: self._files[0]}
        while not self._ending.is_set():
            for file in select.select(self._files, [], [], 0.05)[0]:
                os.write(there[file], os.read(file, _LARGEST))


def _make(host: Host) -> int:
    with host.enter():
        file = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    host.run(["ip", "link", "set", "tun0", "up"])
    return file
