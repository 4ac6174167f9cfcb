"""Clients that download and send UDP requests all the time, each on a new connection."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

from tula.lab.demo.request import BROKEN, Request, ask, download
from tula.lab.guard import LabError
from tula.lab.host import Host

DOWNLOADS = 24
"""At the same time."""
SIZE = 1_000_000
RATE = 2_000_000
"""Bytes a second of one download: half a second each."""
_DATAGRAM_EVERY = 0.05
_ATTEMPTS = 5


class Load:
    """The traffic; runs in a thread of its own for the duration of a ``with`` block.

    A download that breaks is retried at once on a new connection, as real clients do. The lists
    only grow: readers in other threads see a prefix.
    """

    def __init__(self, clients: list[Host], vips: tuple[str, ...], size: int = SIZE) -> None:
        """Describe it; entering it starts the traffic, from all clients to all VIPs: downloads of
        ``size`` bytes."""
        self._clients, self._vips, self._size = clients, vips, size
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="demo-load", daemon=True)
        self._running: dict[int, Request] = {}
        self._error: BaseException | None = None
        self.downloads: list[Request] = []
        """Complete."""
        self.datagrams: list[Request] = []
        """Answered."""
        self.cut: list[Request] = []
        """Downloads that broke and were retried."""
        self.lost: list[Request] = []
        """Datagrams without an answer, retried."""
        self.given_up = 0
        """Requests that failed in every attempt."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._stopping = True
            self._thread.join(2)  # the answers no longer matter

    def stop(self) -> None:
        """Let running requests finish."""
        self._stopping = True
        self._thread.join(30)
        if self._error is not None:
            raise LabError(f"the clients failed: {self._error!r}")

    def running(self) -> Counter[str]:
        """Running downloads, by backend."""
        return Counter(request.backend for request in list(self._running.values()))

    def requests(self) -> Counter[str]:
        """Answered requests of both kinds, by backend."""
        return Counter(request.backend for request in [*self.downloads, *self.datagrams])

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._error = error

    async def _all(self) -> None:
        pairs = list(itertools.product(self._clients, self._vips))
        workers = [self._download_on(number) for number in range(DOWNLOADS)]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
            for client, vip in itertools.cycle(pairs):
                if self._stopping:
                    break
                group.create_task(self._ask(Request(client, vip)))
                await asyncio.sleep(_DATAGRAM_EVERY)

    async def _download_on(self, number: int) -> None:
        """One client that downloads until it is stopped."""
        await asyncio.sleep(number / DOWNLOADS * self._size / RATE)  # spread evenly from the start
        for client, vip in self._targets(number):
            if self._stopping:
                return
            for attempt in range(1, _ATTEMPTS + 1):
                request = self._running[number] = Request(client, vip)
                try:
                    with request.open(socket.SOCK_STREAM) as opened:
                        await download(request, opened, self._size, RATE)
                    self.downloads.append(request)
                    break
                except BROKEN:
                    self.cut.append(request)
                    self.given_up += attempt == _ATTEMPTS
                    await asyncio.sleep(0.01 * attempt)
                finally:
                    del self._running[number]

    def _targets(self, number: int) -> Iterator[tuple[Host, str]]:
        clients, vips = self._clients, self._vips
        client = clients[number % len(clients)]
        for turn in itertools.count(number // len(clients)):
            yield client, vips[turn % len(vips)]

    async def _ask(self, request: Request) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with request.open(socket.SOCK_DGRAM) as opened:
                    await ask(request, opened)
                self.datagrams.append(request)
                return
            except BROKEN:
                self.lost.append(request)
                self.given_up += attempt == _ATTEMPTS
                request = Request(request.client, request.vip, time.monotonic())
