"""Numbered datagrams to VIPs at a steady rate: how many were lost, how long a VIP was silent.

::

    with Datagrams(client, vips, port=53, rate=1000) as probe:
        ...                             # something dies
    assert probe.heard.lost == 0

It runs as a program on the client, and ``serve_datagrams`` as one on each backend, on all of its
addresses at once::

    datagrams.py serve NAME PORT
    datagrams.py probe RATE FLOWS PORT ADDRESS...       until SIGTERM, then one line of JSON
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # the programs start without it
    from tula.lab import Host
    from tula.lab.process import Process

_SO_RCVBUFFORCE = 33
_ROOM = 1 << 25
"""A receive buffer for seconds of traffic: a busy machine must not look like a lossy network."""
_IP_PKTINFO = 8
_GRACE = 3.0
"""Seconds to wait for the last answers."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back."""

    sent: int
    lost: int
    twice: int
    """How many were answered more than once."""
    moved: int
    """How many answers came from another backend than the one before, in the same flow."""
    silence: dict[str, float]
    """By VIP: the longest time in seconds, of any of its flows, from the sending of a datagram that
    was answered to that of the next that was, when some between them were lost; else 0."""
    backends: dict[str, list[str]]
    """By VIP: who answered."""
    seconds: float

    @property
    def longest(self) -> float:
        """The longest silence of any VIP, in seconds."""
        return max(self.silence.values(), default=0.0)

    def __str__(self) -> str:
        return (
            f"{self.lost} of {self.sent:,} lost in {self.seconds:.1f} s, "
            f"longest silence {1000 * self.longest:.0f} ms"
        )


class Datagrams:
    """A stream from a host of the lab, from the block's beginning to its end."""

    def __init__(
        self, client: Host, vips: list[str] | tuple[str, ...], port: int, rate: int, flows: int = 0
    ) -> None:
        """``rate`` datagrams a second, over ``flows`` flows: as many as there are VIPs, or more."""
        self._client = client
        self._words = [str(rate), str(max(flows, len(vips))), str(port), *vips]
        self._process: Process | None = None
        self._heard: Heard | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, __file__, "probe", *self._words]
        self._process = self._client.popen(command, stdout=subprocess.PIPE)
        _wait_until_ready(self._process)
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
        self._heard = Heard(**json.loads(self._process.communicate(timeout=120)[0]))

    @property
    def heard(self) -> Heard:
        """What came back, after the block."""
        assert self._heard is not None
        return self._heard


def serve_datagrams(host: Host, port: int) -> None:
    """Answer on all the host's addresses, those that it will get too."""
    command = [sys.executable, __file__, "serve", host.name, str(port)]
    _wait_until_ready(host.popen(command, stdout=subprocess.PIPE))


def _wait_until_ready(process: Process) -> None:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said == "ready\n", f"it ended: {said}"


def _opened(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    made.setblocking(False)
    return made


def serve(name: str, port: str) -> None:
    """Answers ``NAME PAYLOAD`` from the address that was asked, for ever."""
    selector = selectors.DefaultSelector()
    for family, level, option in (
        (socket.AF_INET, socket.IPPROTO_IP, _IP_PKTINFO),
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
    ):
        made = _opened(family)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(level, option, 1)
        made.bind(("", int(port)))
        selector.register(made, selectors.EVENT_READ)
    head = name.encode() + b" "
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            with suppress(BlockingIOError):
                for _ in range(64):
                    _answer(key.fileobj, head)  # type: ignore[arg-type]


def _answer(opened: socket.socket, head: bytes) -> None:
    data, ancillary, _, client = opened.recvmsg(2048, 128)
    level, kind, info = ancillary[0]
    if level == socket.IPPROTO_IP:  # struct in_pktinfo: the address it was sent to is the last
        info = struct.pack("=I4s4x", 0, info[8:12])
    else:  # struct in6_pktinfo; routes decide by which interface, not the request
        info = info[:16] + bytes(4)
    with suppress(OSError):
        opened.sendmsg([head, data], [(level, kind, info)], 0, client)


class _Probe:
    """Numbered datagrams over connected sockets, sent in turn."""

    def __init__(self, rate: int, flows: int, port: int, vips: list[str]) -> None:
        self._rate = rate
        self._vips = vips
        self._selector = selectors.DefaultSelector()
        self._flows: list[socket.socket] = []
        for number in range(flows):
            vip = vips[number % len(vips)]
            made = _opened(socket.AF_INET6 if ":" in vip else socket.AF_INET)
            made.connect((vip, port))  # answers from another address do not count
            self._selector.register(made, selectors.EVENT_READ, number)
            self._flows.append(made)
        self._times: list[float] = []
        self._answers: list[int] = []
        """By the datagram's number: when it was sent, and how often it was answered."""
        self._names: list[bytes] = [b""] * flows
        self._backends: dict[str, set[str]] = {vip: set() for vip in vips}
        self._moved = 0
        self._answered = 0

    def run(self) -> dict[str, Any]:
        """Warms up (everyone learns everyone's MAC), streams until SIGTERM, then counts."""
        stop: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
        for _ in self._flows:
            self._send()
            self._receive(until=time.monotonic() + 5.0)
        print("ready", flush=True)
        start, first = time.monotonic(), len(self._answers)
        while not stop:
            due = int((time.monotonic() - start) * self._rate) - (len(self._answers) - first)
            for _ in range(due):
                self._send()
            self._receive(until=time.monotonic() + 0.002)
        seconds = time.monotonic() - start
        self._receive(until=time.monotonic() + _GRACE)
        return {
            "sent": len(self._answers),
            "lost": self._answers.count(0),
            "twice": sum(count > 1 for count in self._answers),
            "moved": self._moved,
            "silence": self._silence(),
            "backends": {vip: sorted(names) for vip, names in self._backends.items()},
            "seconds": seconds,
        }

    def _silence(self) -> dict[str, float]:
        """The longest of each VIP's flows; one without any answer after a loss lasts until the
        end."""
        longest = [0.0] * len(self._flows)
        last: dict[int, float] = {}
        losing: set[int] = set()
        end = self._times[-1]
        for number, (sent, count) in enumerate(zip(self._times, self._answers, strict=True)):
            flow = number % len(self._flows)
            since = last.setdefault(flow, sent)
            if not count:
                losing.add(flow)
                continue
            if flow in losing:
                losing.remove(flow)
                longest[flow] = max(longest[flow], sent - since)
            last[flow] = sent
        for flow in losing:
            longest[flow] = max(longest[flow], end - last[flow])
        return {vip: max(longest[n :: len(self._vips)]) for n, vip in enumerate(self._vips)}

    def _send(self) -> None:
        number = len(self._answers)
        self._answers.append(0)
        self._times.append(time.monotonic())
        with suppress(OSError):  # the answer to an earlier one, or no route: this one is lost
            self._flows[number % len(self._flows)].send(struct.pack("!Q", number))

    def _receive(self, until: float) -> None:
        """Reads answers until all are there or the time is up."""
        while self._answered < len(self._answers):
            left = until - time.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(left):
                with suppress(OSError):  # nothing more, or an ICMP error: that one is lost
                    while True:
                        self._count(key.data, key.fileobj.recv(2048))  # type: ignore[union-attr]

    def _count(self, flow: int, answer: bytes) -> None:
        name, _, payload = answer.partition(b" ")
        (number,) = struct.unpack("!Q", payload)
        self._answered += not self._answers[number]
        self._answers[number] += 1
        if name != self._names[flow]:
            self._moved += bool(self._names[flow])
            self._names[flow] = name
            self._backends[self._vips[flow % len(self._vips)]].add(name.decode())


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
    else:
        rate, flows, port, *vips = arguments
        print(json.dumps(_Probe(int(rate), int(flows), int(port), vips).run()), flush=True)
