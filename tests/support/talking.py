"""Clients that go on speaking over open connections, whatever happens on the way."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from tula.lab import Host, TcpFlow, wait_until
from tula.lab.wait import on_loop

_PAUSE = 0.1
_LONGEST = 3600.0


class Talking:
    """Connections that each send ten times a second, until the end or until they break."""

    def __init__(self, flows: Sequence[TcpFlow]) -> None:
        self.flows = flows
        self.answers = [0] * len(flows)
        self.broken: dict[int, str] = {}
        """Why, by the source port."""
        self._ending = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._done: Future[object] | None = None

    def __enter__(self) -> Self:
        self._done = self._thread.submit(on_loop, self._all(), _LONGEST)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        assert self._done is not None
        self._done.result()
        self._thread.shutdown()

    def wait_for_answers(self, within: float = 60.0) -> None:
        """Until each connection that is not broken was answered once more."""
        before = list(self.answers)

        def answered() -> bool:
            return all(
                count > had or flow.source_port in self.broken
                for flow, count, had in zip(self.flows, self.answers, before, strict=True)
            )

        wait_until(answered, within, "an answer on every connection")

    async def _all(self) -> None:
        await asyncio.gather(*(self._talk(n, flow) for n, flow in enumerate(self.flows)))

    async def _talk(self, number: int, flow: TcpFlow) -> None:
        while not self._ending.is_set():
            try:
                await asyncio.wait_for(flow.again(), 60)
            except (OSError, TimeoutError) as error:
                self.broken[flow.source_port] = str(error) or "no answer"
                return
            self.answers[number] += 1
            await asyncio.sleep(_PAUSE)


class Datagrams:
    """A connected UDP socket that sends all the time, and hears of errors."""

    def __init__(self, host: Host, vip: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET
        self._socket = host.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(0.02)
        self._socket.connect((vip, port))
        self.refused = self.answered = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

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
        self._socket.close()

    def _run(self) -> None:
        while not self._ending.wait(0.005):
            try:
                self._socket.send(b"?")
                self._socket.recv(100)
                self.answered += 1
            except ConnectionRefusedError:
                self.refused += 1
            except TimeoutError:
                continue
