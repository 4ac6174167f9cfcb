"""Programs for hosts of the lab: a server that ends in good order, and clients of all kinds.

::

    day_load.py serve NAME PORT ADDRESS...       TCP: ``NAME`` for each line; UDP: what came, NAME
    day_load.py load CONNECTIONS FLOWS PORT VIP...      until SIGTERM, then one line of JSON

From SIGHUP on a server says ``bye`` with the next answer on each connection and closes it, as a
web server does that is to be stopped. Times are CLOCK_MONOTONIC's, which all processes of a
machine share.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any

_SO_RCVBUFFORCE = 33
_ROOM = 1 << 22
"""A receive buffer for seconds of traffic: a busy machine must not look like a lossy network."""
_PACE = 0.1
"""Seconds between the requests of a connection, the datagrams of a flow, and new connections."""
_PATIENCE = 20.0
"""Seconds without an answer after which a request over TCP is lost."""


def _datagrams(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    return made


async def serve(name: str, port: str, *addresses: str) -> None:
    """For ever."""
    ending, head = asyncio.Event(), name.encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.readline():
                last = ending.is_set()
                writer.write(head + (b" bye\n" if last else b"\n"))
                await writer.drain()
                if last:
                    break
        writer.close()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, client: Any) -> None:
            self.transport.sendto(data + head, client)

    loop = asyncio.get_running_loop()
    for address in addresses:
        await asyncio.start_server(answer, address, int(port), backlog=1024)
        made = _datagrams(address)
        made.bind((address, int(port)))
        await loop.create_datagram_endpoint(Echo, sock=made)
    loop.add_signal_handler(signal.SIGHUP, ending.set)
    print("ready", flush=True)
    await asyncio.Event().wait()


class Load:
    """What was asked and what came of it."""

    def __init__(self, port: int, vips: list[str]) -> None:
        self._port, self._vips = port, vips
        self._stop = asyncio.Event()
        self._ready = 0
        self._asked: list[list[Any]] = []
        """Kind, sent, seconds to the answer (None while there is none), who, what broke it."""

    async def run(self, connections: int, flows: int) -> list[list[Any]]:
        """By connections that stay open, by new ones, and by UDP flows."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        tasks = [asyncio.create_task(self._keep(n)) for n in range(connections)]
        while self._ready < connections:
            await asyncio.sleep(0.01)
        sockets = [self._flow(n) for n in range(flows)]
        print("ready", flush=True)
        number = 0
        while not self._stop.is_set():
            for each in sockets:
                self._send(each)
            for vip in self._vips:
                tasks.append(asyncio.create_task(self._once(vip)))
            number += 1
            await asyncio.sleep(_PACE)
        await asyncio.wait(tasks, timeout=_PATIENCE + 5.0)
        return self._asked

    def _note(self, kind: str, who: str = "") -> list[Any]:
        made: list[Any] = [kind, time.monotonic(), None, who, ""]
        self._asked.append(made)
        return made

    async def _keep(self, number: int) -> None:
        """A connection that is asked all the time, and another one after it."""
        vip = self._vips[number % len(self._vips)]
        counted = False
        while not self._stop.is_set():
            asked = self._note("new")
            try:
                writer = None
                opening = asyncio.open_connection(vip, self._port)
                reader, writer = await asyncio.wait_for(opening, _PATIENCE)
                last = await self._ask(reader, writer, asked)
                who = asked[3]
                self._ready += not counted
                counted = True
                while not last and not self._stop.is_set():
                    await asyncio.sleep(_PACE)
                    asked = self._note("kept", who)
                    last = await self._ask(reader, writer, asked)
            except (OSError, asyncio.TimeoutError) as error:  # noqa: UP041
                asked[4] = repr(error)
                await asyncio.sleep(_PACE)
            finally:
                if writer is not None:
                    writer.close()

    async def _once(self, vip: str) -> None:
        asked = self._note("new")
        try:
            opening = asyncio.open_connection(vip, self._port)
            reader, writer = await asyncio.wait_for(opening, _PATIENCE)
            try:
                await self._ask(reader, writer, asked)
            finally:
                writer.close()
        except (OSError, asyncio.TimeoutError) as error:  # noqa: UP041
            asked[4] = repr(error)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: list[Any]
    ) -> bool:
        """Whether that was the connection's last answer."""
        writer.write(b"?\n")
        answer = (await asyncio.wait_for(reader.readline(), _PATIENCE)).decode().split()
        if not answer:
            raise ConnectionResetError("closed without an answer")
        asked[2], asked[3] = time.monotonic() - asked[1], answer[0]
        return answer[1:] == ["bye"]

    def _flow(self, number: int) -> socket.socket:
        vip = self._vips[number % len(self._vips)]
        made = _datagrams(vip)
        made.connect((vip, self._port))  # answers from another address do not count
        made.setblocking(False)

        def readable() -> None:
            with suppress(OSError):
                while True:
                    answer = made.recv(2048)
                    asked = self._asked[struct.unpack_from("!Q", answer)[0]]
                    asked[2] = asked[2] or time.monotonic() - asked[1]
                    asked[3] = answer[8:].decode()

        asyncio.get_running_loop().add_reader(made, readable)
        return made

    def _send(self, flow: socket.socket) -> None:
        asked = self._note("datagram")
        try:
            flow.send(struct.pack("!Q", len(self._asked) - 1))
        except OSError as error:  # the answer to an earlier one
            asked[4] = repr(error)


async def load(connections: str, flows: str, port: str, *vips: str) -> None:
    """One line when all connections are open, one with everything at the end."""
    asked = await Load(int(port), list(vips)).run(int(connections), int(flows))
    print(json.dumps(asked), flush=True)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    asyncio.run(serve(*arguments) if what == "serve" else load(*arguments))
