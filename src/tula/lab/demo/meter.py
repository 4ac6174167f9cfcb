"""What the interfaces have carried, read from the kernel's counters many times per second."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Self

from tula.lab.host import Host

_WINDOW = 2.0
"""Seconds over which rates are averaged."""


class Bytes(NamedTuple):
    """Received and sent."""

    into: int
    out: int

    def __sub__(self, before: Bytes) -> Bytes:
        return Bytes(self.into - before.into, self.out - before.out)


@dataclass(frozen=True)
class Reading:
    """Bytes by host at one point in time."""

    at: float
    hosts: dict[str, Bytes]

    def of(self, names: Iterable[str]) -> Bytes:
        """The sum over these hosts."""
        found = [self.hosts[name] for name in names]
        return Bytes(sum(b.into for b in found), sum(b.out for b in found))

    def __sub__(self, before: Reading) -> Reading:
        return Reading(
            self.at - before.at,
            {name: now - before.hosts[name] for name, now in self.hosts.items()},
        )


class Meter:
    """Reads eth0 of these hosts; use it in a ``with`` block.

    A file opened under /proc/net keeps its namespace, so reading does not have to enter it.
    """

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Describe it; entering it opens the files, and counting starts at 0."""
        self._hosts = hosts
        self._files: dict[str, io.FileIO] = {}
        self._before: dict[str, Bytes] = {}
        """By host, what its earlier interfaces have carried."""
        self._last: dict[str, Bytes] = {}
        self._stack = ExitStack()
        self._recent: deque[Reading] = deque()

    def __enter__(self) -> Self:
        for host in self._hosts:
            self.open(host)
        self._start = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, host: Host) -> None:
        """Read a host from its namespace; again after it has got another one by a boot."""
        with host.enter():
            opened = io.FileIO("/proc/thread-self/net/dev")
        self._before[host.name] = self._last.get(host.name, Bytes(0, 0))
        self._files[host.name] = self._stack.enter_context(opened)

    def total(self) -> Reading:
        """Bytes since the start."""
        return self._read() - self._start

    def rate(self) -> Reading:
        """Bytes within the last two seconds or so; to be called regularly."""
        now = self._read()
        self._recent.append(now)
        while len(self._recent) > 2 and now.at - self._recent[0].at > _WINDOW:
            self._recent.popleft()
        return now - self._recent[0]

    def _read(self) -> Reading:
        for name, file in list(self._files.items()):
            before, now = self._before[name], _eth0(file)
            if now is not None:
                self._last[name] = Bytes(before.into + now.into, before.out + now.out)
        return Reading(time.monotonic(), dict(self._last))


def _eth0(file: io.FileIO) -> Bytes | None:
    """None without the interface: its host is dead."""
    file.seek(0)
    for line in file.readall().decode().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "eth0":
            fields = counts.split()
            return Bytes(int(fields[0]), int(fields[8]))
    return None
