"""Thousands of TCP connections that ask now and then: which break when something changes.

::

    with Connections(client, vips, port=80, count=2000) as opened:
        ...                             # something dies
        opened.wait_for_answers()       # each has been answered since
    assert opened.found.broken == 0

It runs as a program on the client, and ``serve_connections`` as one on each backend, on all of
its addresses at once::

    connections.py serve NAME PORT
    connections.py ask COUNT PERIOD PORT ADDRESS...     until SIGTERM, then one line of JSON
"""

from __future__ import annotations

import errno
import heapq
import json
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # the programs start without it
    from tula.lab import Host
    from tula.lab.process import Process

_AT_ONCE = 100
"""How many connect at the same time."""
_SILENT = 20.0
"""Seconds without an answer after which a connection counts as silent: TCP has tried six times."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of them."""

    opened: int
    answers: int
    reset: int
    closed: int
    silent: int
    """Without an answer at the end."""
    moved: int
    """Answered by another backend than the one that they began with."""
    slowest: float
    """The longest time in seconds that an answer took."""
    backends: dict[str, int]
    """How many connections each backend began with."""

    @property
    def broken(self) -> int:
        """Those that did not survive."""
        return self.reset + self.closed + self.silent + self.moved

    def __str__(self) -> str:
        return (
            f"{self.broken} of {self.opened:,} broken ({self.reset} reset, {self.closed} closed, "
            f"{self.silent} silent, {self.moved} elsewhere), {self.answers:,} answers, "
            f"slowest {1000 * self.slowest:.0f} ms"
        )


class Connections:
    """Open from the block's beginning to its end."""

    def __init__(
        self,
        client: Host,
        vips: list[str] | tuple[str, ...],
        port: int,
        count: int,
        period: float = 0.5,
    ) -> None:
        """Each asks every ``period`` seconds, at moments spread over it."""
        self._client = client
        self._words = [str(count), str(period), str(port), *vips]
        self._process: Process | None = None
        self._found: Found | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, "ask", *self._words]
        self._process = self._client.popen(command, stdout=subprocess.PIPE)
        self._wait_for("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if error is not None:
            self._process.kill()
            self._process.communicate(timeout=60)
            return
        self._process.send_signal(signal.SIGTERM)
        self._found = Found(**json.loads(self._process.communicate(timeout=120)[0]))

    def wait_for_answers(self) -> None:
        """Until every connection that is not broken has sent something, and has been answered,
        since this call; one that does not get its answer is broken after ``_SILENT`` seconds."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)
        self._wait_for("answered")

    @property
    def found(self) -> Found:
        """What became of them, after the block."""
        assert self._found is not None
        return self._found

    def _wait_for(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == f"{word}\n", f"it ended: {said}"


def serve_connections(host: Host, port: int) -> None:
    """Answer with the host's name on all its addresses, those that it will get too."""
    command = [sys.executable, __file__, "serve", host.name, str(port)]
    process = host.popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said == "ready\n", f"it ended: {said}"


def serve(name: str, port: str) -> None:
    """Answers every line with ``NAME``, for ever."""
    selector = selectors.DefaultSelector()
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((anywhere, int(port)))
        made.listen(4096)
        made.setblocking(False)
        selector.register(made, selectors.EVENT_READ, "listener")
    answer = name.encode() + b"\n"
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            opened: Any = key.fileobj
            if key.data == "listener":
                with suppress(BlockingIOError):
                    while True:
                        made, _ = opened.accept()
                        made.setblocking(False)
                        selector.register(made, selectors.EVENT_READ, "connection")
                continue
            try:
                data = opened.recv(4096)
                if data:
                    opened.send(answer * data.count(b"\n"))
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            selector.unregister(opened)
            opened.close()


class _Connection:
    """One of them, as the asking program sees it."""

    def __init__(self, number: int, target: tuple[str, int]) -> None:
        self.number = number
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            self.socket.connect(target)
        self.asked = 0.0
        """When the open question was sent; 0: none is open."""
        self.sent = 0.0
        """When the question was sent that was answered last."""
        self.backend = b""
        self.end = ""
        """How it broke."""


class _Asking:
    """Opens them, has each ask every so often, and sees what comes back."""

    def __init__(self, count: int, period: float, port: int, vips: list[str]) -> None:
        self._targets = [(vips[number % len(vips)], port) for number in range(count)]
        self._period = period
        self._selector = selectors.DefaultSelector()
        self._all: list[_Connection] = []
        self._due: list[tuple[float, int]] = []
        self._waiting = 0
        """How many of those that are connecting have not got their first answer."""
        self._answers = 0
        self._slowest = 0.0

    def run(self) -> dict[str, Any]:
        """Until SIGTERM; at SIGUSR1 waits until all have been answered, and says so."""
        stop: list[int] = []
        marks: list[float] = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        signal.signal(signal.SIGUSR1, lambda *_: marks.append(time.monotonic()))
        while len(self._all) < len(self._targets) or self._waiting:
            while self._waiting < _AT_ONCE and len(self._all) < len(self._targets):
                self._open()
            self._serve(0.05)
        print("ready", flush=True)
        while not stop:
            self._serve(0.02)
            if marks and self._answered_since(marks[0]):
                del marks[0]
                print("answered", flush=True)
        end = time.monotonic() + _SILENT
        while any(one.asked and not one.end for one in self._all) and time.monotonic() < end:
            self._receive(0.05)
        return self._counted()

    def _counted(self) -> dict[str, Any]:
        ends = Counter(one.end for one in self._all)
        return {
            "opened": len(self._all),
            "answers": self._answers,
            "reset": ends["reset"],
            "closed": ends["closed"],
            "silent": ends["silent"] + sum(bool(c.asked and not c.end) for c in self._all),
            "moved": ends["moved"],
            "slowest": self._slowest,
            "backends": dict(Counter(one.backend.decode() for one in self._all)),
        }

    def _open(self) -> None:
        number = len(self._all)
        one = _Connection(number, self._targets[number])
        one.asked = time.monotonic()
        self._selector.register(one.socket, selectors.EVENT_WRITE, one)
        self._waiting += 1
        self._all.append(one)

    def _serve(self, wait: float) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, number = heapq.heappop(self._due)
            self._ask(self._all[number], now)
            heapq.heappush(self._due, (max(due + self._period, now), number))
        if self._due:
            wait = min(wait, max(0.0, self._due[0][0] - now))
        self._receive(wait)

    def _ask(self, one: _Connection, now: float) -> None:
        if one.asked:
            if now - one.asked > _SILENT and not one.end:
                self._break(one, "silent")
            return
        if not one.end:
            one.asked = now
            try:
                one.socket.send(b"?\n")
            except OSError as error:
                self._fail(one, error)

    def _receive(self, wait: float) -> None:
        for key, events in self._selector.select(wait):
            one: _Connection = key.data
            try:
                if events & selectors.EVENT_WRITE:  # connected, or not
                    number = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number:
                        raise OSError(number, "connect")
                    self._selector.modify(one.socket, selectors.EVENT_READ, one)
                    one.socket.send(b"?\n")
                else:
                    self._answer(one, one.socket.recv(4096))
            except BlockingIOError:
                pass
            except OSError as error:
                self._fail(one, error)

    def _answer(self, one: _Connection, data: bytes) -> None:
        now = time.monotonic()
        if not data:
            self._break(one, "closed")
        elif not one.backend:
            one.backend = data.strip()
            self._waiting -= 1
            first = now + random.random() * self._period
            heapq.heappush(self._due, (first, one.number))
        elif data.strip() != one.backend:
            self._break(one, "moved")
        else:
            self._answers += 1
            self._slowest = max(self._slowest, now - one.asked)
        one.sent, one.asked = one.asked, 0.0

    def _fail(self, one: _Connection, error: OSError) -> None:
        reset = error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED)
        self._break(one, "reset" if reset else "silent")

    def _break(self, one: _Connection, how: str) -> None:
        one.end = how
        self._waiting -= not one.backend
        self._selector.unregister(one.socket)
        one.socket.close()

    def _answered_since(self, mark: float) -> bool:
        return all(one.end or one.sent > mark for one in self._all)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
    else:
        count, period, port, *vips = arguments
        print(json.dumps(_Asking(int(count), float(period), int(port), vips).run()), flush=True)
