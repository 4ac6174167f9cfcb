"""Programs for hosts of the lab: servers that name themselves, and a client that notes all.

::

    churn_load.py serve NAME PORT ADDRESS...            TCP: NAME, then bytes slowly; UDP: NAME
    churn_load.py load DOWNLOADS FLOWS PORT VIP...      until SIGTERM, then one line of JSON

Times are CLOCK_MONOTONIC's, which all processes of a machine share.
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
_PACE = 0.25
"""Seconds between the pieces of a download."""
_SILENT = 20.0
"""Seconds without a byte after which a download is broken."""
_TICK = 0.05
"""Seconds between the datagrams of a flow."""


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def serve(name: str, port: str, *addresses: str) -> None:
    """For ever."""
    head = name.encode()

    async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(head + b"\n")
            while not reader.at_eof():
                writer.write(bytes(500))
                await writer.drain()
                await asyncio.sleep(_PACE)
        writer.close()

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, client: Any) -> None:
            self.transport.sendto(data + head, client)

    loop = asyncio.get_running_loop()
    for address in addresses:
        await asyncio.start_server(download, address, int(port), backlog=1024)
        made = socket.socket(_family(address), socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        made.bind((address, int(port)))
        await loop.create_datagram_endpoint(Echo, sock=made)
    print("ready", flush=True)
    await asyncio.Event().wait()


class Load:
    """What was asked, who answered and when."""

    def __init__(self, port: int, vips: list[str]) -> None:
        self._port, self._vips = port, vips
        self._stop = asyncio.Event()
        self.open = 0
        self.broken: set[int] = set()
        """Downloads that broke once or more."""
        self.breaks: list[tuple[str, float, float, str]] = []
        """Backend, opened, broken, how."""
        self.datagrams: list[list[Any]] = []
        """Flow, sent, who answered ("" while nobody has), how often."""

    async def run(self, downloads: int, flows: int) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        tasks = [asyncio.create_task(self._download(n)) for n in range(downloads)]
        sockets = [self._socket(n) for n in range(flows)]
        while self.open < downloads:
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        while not self._stop.is_set():
            await asyncio.sleep(_TICK)
            for flow, opened in enumerate(sockets):
                number = len(self.datagrams)
                self.datagrams.append([flow, time.monotonic(), "", 0])
                with suppress(OSError):  # the answer to an earlier one
                    opened.send(struct.pack("!Q", number))
        end = time.monotonic() + 15.0  # where the last change broke a download, the next one begins
        while time.monotonic() < end and not (
            self.open == downloads and all(each[3] for each in self.datagrams)
        ):
            await asyncio.sleep(0.05)
        still, broken = self.open, set(self.broken)
        for task in tasks:
            task.cancel()
        whole = len(tasks) - len(broken)
        return {"open": still, "whole": whole, "breaks": self.breaks, "datagrams": self.datagrams}

    async def _download(self, number: int) -> None:
        """One after the other; each goes on until it breaks."""
        while True:
            opened, name, how = time.monotonic(), "", "closed"
            try:
                vip = self._vips[number % len(self._vips)]
                reader, writer = await asyncio.open_connection(vip, self._port)
                name = (await asyncio.wait_for(reader.readline(), _SILENT)).decode().strip()
                self.open += bool(name)
                while await asyncio.wait_for(reader.read(65536), _SILENT):
                    pass
            except (OSError, asyncio.TimeoutError) as error:  # noqa: UP041
                how = repr(error)
            self.open -= bool(name)
            self.broken.add(number)
            self.breaks.append((name, opened, time.monotonic(), how))
            with suppress(UnboundLocalError):
                writer.close()
            await asyncio.sleep(0.05)  # where it is refused, not again and again at once

    def _socket(self, flow: int) -> socket.socket:
        vip = self._vips[flow % len(self._vips)]
        made = socket.socket(_family(vip), socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        made.connect((vip, self._port))  # answers from another address do not count
        made.setblocking(False)

        def readable() -> None:
            with suppress(OSError):
                while True:
                    answer = made.recv(2048)
                    entry = self.datagrams[struct.unpack_from("!Q", answer)[0]]
                    entry[2] = answer[8:].decode()
                    entry[3] += 1

        asyncio.get_running_loop().add_reader(made, readable)
        return made


async def load(downloads: str, flows: str, port: str, *vips: str) -> None:
    """One line when all downloads run, one with everything at the end."""
    print(json.dumps(await Load(int(port), list(vips)).run(int(downloads), int(flows))), flush=True)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    asyncio.run(serve(*arguments) if what == "serve" else load(*arguments))
