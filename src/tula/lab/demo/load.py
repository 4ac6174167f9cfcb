"""Clients that download without end, and ask by UDP, each on a new connection."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

from tula.lab.demo.flow import BROKEN, Flow, ask, download
from tula.lab.guard import LabError
from tula.lab.host import Host

DOWNLOADS = 24
"""At a time."""
SIZE = 1_000_000
RATE = 2_000_000
"""Bytes a second of one download: half a second each."""
_DATAGRAM_EVERY = 0.05
_ATTEMPTS = 5


class Load:
    """The traffic; runs in a thread of its own for the length of a ``with`` block.

    A download that is cut is asked again at once on a new connection, as a real client does. The
    lists only grow: readers in other threads see a prefix.
    """

    def __init__(self, clients: list[Host], vips: tuple[str, ...]) -> None:
        """Describe it; entering it starts the traffic, from all clients to all VIPs."""
        self._clients, self._vips = clients, vips
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="demo-load", daemon=True)
        self._running: dict[int, Flow] = {}
        self._fault: BaseException | None = None
        self.downloads: list[Flow] = []
        """Answered to the last byte."""
        self.datagrams: list[Flow] = []
        """Answered."""
        self.cut: list[Flow] = []
        """Downloads that broke, and were asked again."""
        self.lost: list[Flow] = []
        """Datagrams without an answer, asked again."""
        self.given_up = 0
        """What had no answer after many attempts either."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.stop()
        else:
            self._stopping = True
            self._thread.join(2)  # nobody waits for the answers any more

    def stop(self) -> None:
        """Let what runs come to its end."""
        self._stopping = True
        self._thread.join(30)
        if self._fault is not None:
            raise LabError(f"the clients failed: {self._fault!r}")

    def running(self) -> Counter[str]:
        """Downloads that run now, by backend."""
        return Counter(flow.backend for flow in list(self._running.values()))

    def requests(self) -> Counter[str]:
        """Answered requests of both kinds, by backend."""
        return Counter(flow.backend for flow in [*self.downloads, *self.datagrams])

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._fault = error

    async def _all(self) -> None:
        ends = list(itertools.product(self._clients, self._vips))
        workers = [self._download_on(number) for number in range(DOWNLOADS)]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker)
            for client, vip in itertools.cycle(ends):
                if self._stopping:
                    break
                group.create_task(self._ask(Flow(client, vip)))
                await asyncio.sleep(_DATAGRAM_EVERY)

    async def _download_on(self, number: int) -> None:
        """One client that never has enough."""
        await asyncio.sleep(number / DOWNLOADS * SIZE / RATE)  # evenly spread from the start
        for client, vip in self._turns(number):
            if self._stopping:
                return
            for attempt in range(1, _ATTEMPTS + 1):
                flow = self._running[number] = Flow(client, vip)
                try:
                    with flow.open(socket.SOCK_STREAM) as opened:
                        await download(flow, opened, SIZE, RATE)
                    self.downloads.append(flow)
                    break
                except BROKEN:
                    self.cut.append(flow)
                    self.given_up += attempt == _ATTEMPTS
                    await asyncio.sleep(0.01 * attempt)
                finally:
                    del self._running[number]

    def _turns(self, number: int) -> Iterator[tuple[Host, str]]:
        clients, vips = self._clients, self._vips
        client = clients[number % len(clients)]
        for turn in itertools.count(number // len(clients)):
            yield client, vips[turn % len(vips)]

    async def _ask(self, flow: Flow) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with flow.open(socket.SOCK_DGRAM) as opened:
                    await ask(flow, opened)
                self.datagrams.append(flow)
                return
            except BROKEN:
                self.lost.append(flow)
                self.given_up += attempt == _ATTEMPTS
                flow = Flow(flow.client, flow.vip, time.monotonic())
