"""A client that never stops asking, to show that nothing was ever unanswered."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tula.lab import Host, LabError, tcp_ask, wait_until


class Asking:
    """Asks these VIPs over new TCP connections, one after the other, until it is left."""

    def __init__(self, client: Host, vips: Iterable[str], port: int) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._client, self._vips, self._port = client, list(vips), port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, more: int = 4) -> None:
        """Until so many more answers came."""
        goal = self.answers + more
        wait_until(lambda: self.answers >= goal or self.failures, what=f"{more} more answers")

    def _run(self) -> None:
        while not self._stop.wait(0.01):  # the machine has other things to do as well
            for vip in self._vips:
                try:
                    tcp_ask(self._client, vip, self._port)
                except LabError as error:
                    self.failures.append(str(error))
                else:
                    self.answers += 1
