"""Programs for hosts of the lab: a UDP echo, and a stream that counts what comes back.

::

    udp_load.py echo NAME PORT,PORT ADDRESS...          answers ``NAME PAYLOAD`` for ever
    udp_load.py stream RATE FLOWS ADDRESS,PORT...       until SIGTERM, then one line of JSON
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

_SO_RCVBUFFORCE = 33
_ROOM = 1 << 25
"""A receive buffer for seconds of traffic: a busy machine must not look like a lossy network."""


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    made.bind((address, port))
    made.setblocking(False)
    return made


def echo(name: str, ports: str, *addresses: str) -> None:
    """Answers from the address that was asked."""
    selector = selectors.DefaultSelector()
    for address in addresses:
        for port in ports.split(","):
            selector.register(_bound(address, int(port)), selectors.EVENT_READ)
    head = name.encode() + b" "
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            try:
                for _ in range(64):
                    data, client = key.fileobj.recvfrom(2048)  # type: ignore[union-attr]
                    key.fileobj.sendto(head + data, client)  # type: ignore[union-attr]
            except BlockingIOError:
                pass


class Stream:
    """Numbered datagrams over connected sockets, sent in turn at a steady rate."""

    def __init__(self, rate: int, flows: int, targets: list[str]) -> None:
        self._rate = rate
        self._selector = selectors.DefaultSelector()
        self._flows: list[socket.socket] = []
        for number in range(flows):
            address, _, port = targets[number % len(targets)].rpartition(",")
            made = _bound("::" if ":" in address else "0.0.0.0", 0)
            made.connect((address, int(port)))  # answers from another address do not count
            self._selector.register(made, selectors.EVENT_READ, number)
            self._flows.append(made)
        self._answers: list[int] = []
        """By the datagram's number: how often it was answered."""
        self._names: list[bytes] = [b""] * flows
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
            self._receive(until=time.monotonic() + 0.003)
        seconds = time.monotonic() - start
        self._receive(until=time.monotonic() + 3.0)
        return {
            "sent": len(self._answers),
            "seconds": seconds,
            "lost": self._answers.count(0),
            "twice": sum(count > 1 for count in self._answers),
            "moved": self._moved,
            "backends": sorted({name.decode() for name in self._names}),
        }

    def _send(self) -> None:
        number = len(self._answers)
        self._answers.append(0)
        with suppress(ConnectionRefusedError):  # the answer to an earlier one
            self._flows[number % len(self._flows)].send(struct.pack("!Q", number))

    def _receive(self, until: float) -> None:
        """Reads answers until all are there or the time is up."""
        while self._answered < len(self._answers):
            left = until - time.monotonic()
            if left <= 0:
                return
            for key, _ in self._selector.select(left):
                try:
                    while True:
                        self._count(key.data, key.fileobj.recv(2048))  # type: ignore[union-attr]
                except (BlockingIOError, ConnectionRefusedError):
                    pass  # refused: that one is lost

    def _count(self, flow: int, answer: bytes) -> None:
        name, _, payload = answer.partition(b" ")
        (number,) = struct.unpack("!Q", payload)
        self._answered += not self._answers[number]
        self._answers[number] += 1
        self._moved += name != (self._names[flow] or name)
        self._names[flow] = name


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "echo":
        echo(*arguments)
    else:
        rate, flows, *targets = arguments
        print(json.dumps(Stream(int(rate), int(flows), targets).run()), flush=True)
