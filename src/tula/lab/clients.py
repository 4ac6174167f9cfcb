"""Clients inside hosts that ask who answers: one flow, or hundreds with chosen source ports."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any

from tula.lab.guard import LabError
from tula.lab.host import Host
from tula.lab.wait import on_loop

FIRST_PORT = 20000
"""Source ports of bulk flows start here unless named: below the kernel's own choice."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _open(
    host: Host, kind: int, vip: str, source_port: int, source: str | None = None
) -> socket.socket:
    """A non-blocking socket in the host, bound to its source."""
    made = host.socket(_family(vip), kind)
    try:
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        anywhere = "::" if ":" in vip else "0.0.0.0"
        made.bind((source or anywhere, source_port))
    except OSError as error:
        made.close()
        raise LabError(f"{host.name} cannot use source port {source_port}: {error}") from None
    return made


class TcpFlow:
    """One open TCP connection to the identification servers; closed by the caller or the lab."""

    def __init__(self, host: Host, opened: socket.socket, vip: str, port: int) -> None:
        """See ``tcp_flow`` and ``tcp_flows``."""
        self.host = host
        self.destination = (vip, port)
        self.source_port = int(opened.getsockname()[1])
        self.backend = ""
        """Who answered last."""
        self._socket = opened
        self._rest = b""

    async def connect(self) -> str:
        """Connect; the server's greeting is its name."""
        await asyncio.get_running_loop().sock_connect(self._socket, self.destination)
        return await self._line()

    async def again(self) -> str:
        """Send a line over the same connection; who answers?"""
        await asyncio.get_running_loop().sock_sendall(self._socket, b"?\n")
        return await self._line()

    async def _line(self) -> str:
        loop = asyncio.get_running_loop()
        while b"\n" not in self._rest:
            data = await loop.sock_recv(self._socket, 4096)
            if not data:
                raise ConnectionResetError("the backend closed the connection")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        self.backend = line.decode()
        return self.backend

    def ask(self, timeout: float = 3.0) -> str:
        """``again`` from outside the loop; raises ``LabError`` when nobody answers."""
        return on_loop(_within(self.again(), timeout, f"port {self.source_port}"))

    def close(self, reset: bool = False) -> None:
        """FIN, or with ``reset`` a RST: then the source port is free at once, on both sides."""
        if reset and self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()


async def _within(work: Any, timeout: float, what: str) -> str:
    try:
        return str(await asyncio.wait_for(work, timeout))
    except TimeoutError:
        raise LabError(f"no answer within {timeout:g} s: {what}") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise LabError(f"{reason}: {what}") from None


async def _udp(opened: socket.socket, vip: str, port: int, payload: bytes) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, (vip, port))  # answers from another address do not count
    await loop.sock_sendall(opened, payload)
    answer = await loop.sock_recv(opened, 65535)
    return answer.split(b" ", 1)[0].decode()


async def _all(
    asked: dict[int, Any], what: str, timeout: float, allow_loss: bool
) -> dict[int, str]:
    """Await all at once; those that fail are lost."""
    tasks = {key: _within(work, timeout, f"{what} port {key}") for key, work in asked.items()}
    results = await asyncio.gather(*tasks.values(), return_exceptions=True)
    answers: dict[int, str] = {}
    lost: list[BaseException] = []
    for key, result in zip(tasks, results, strict=True):
        if isinstance(result, str):
            answers[key] = result
        elif isinstance(result, LabError):
            lost.append(result)
        else:
            raise result
    if lost and not allow_loss:
        raise LabError(f"{len(lost)} of {len(asked)} flows had no answer; the first: {lost[0]}")
    return answers


def tcp_flow(
    host: Host,
    vip: str,
    port: int,
    source_port: int = 0,
    source: str | None = None,
    timeout: float = 3.0,
) -> TcpFlow:
    """Connect and stay connected."""
    flow = TcpFlow(host, _open(host, socket.SOCK_STREAM, vip, source_port, source), vip, port)
    try:
        on_loop(_within(flow.connect(), timeout, f"{host.name} to {vip} port {port}"))
    except BaseException:
        flow.close(reset=True)
        raise
    return host.owns(flow)


def tcp_flows(
    host: Host,
    vip: str,
    port: int,
    source_ports: Iterable[int] | int = 200,
    source: str | None = None,
    timeout: float = 5.0,
) -> list[TcpFlow]:
    """Many, at the same time; all stay connected, or ``LabError``."""
    made: list[TcpFlow] = []
    try:
        for number in _ports(source_ports):
            opened = _open(host, socket.SOCK_STREAM, vip, number, source)
            made.append(TcpFlow(host, opened, vip, port))
        asked = {flow.source_port: flow.connect() for flow in made}
        on_loop(_all(asked, f"{host.name} to {vip} port {port} from", timeout, False))
    except BaseException:
        for flow in made:
            flow.close(reset=True)
        raise
    return [host.owns(flow) for flow in made]


def ask_all(
    flows: Iterable[TcpFlow], timeout: float = 5.0, allow_loss: bool = False
) -> dict[int, str]:
    """Ask over every open connection again: source port → who answered."""
    asked = {flow.source_port: flow.again() for flow in flows}
    return on_loop(_all(asked, "open connection from", timeout, allow_loss))


def tcp_ask(
    host: Host,
    vip: str,
    port: int,
    source_port: int = 0,
    source: str | None = None,
    timeout: float = 3.0,
    reset: bool = True,
) -> str:
    """Connect, read who answers, close (by RST unless told otherwise: ports are free again)."""
    flow = tcp_flow(host, vip, port, source_port, source, timeout)
    flow.close(reset=reset)
    return flow.backend


def udp_ask(
    host: Host,
    vip: str,
    port: int,
    source_port: int = 0,
    source: str | None = None,
    timeout: float = 3.0,
    payload: bytes = b"?",
) -> str:
    """One datagram; who answers, from the VIP?"""
    with _open(host, socket.SOCK_DGRAM, vip, source_port, source) as opened:
        what = f"{host.name} to {vip} port {port}/udp"
        return on_loop(_within(_udp(opened, vip, port, payload), timeout, what))


def flows(
    host: Host,
    vip: str,
    port: int,
    source_ports: Iterable[int] | int = 200,
    protocol: str = "tcp",
    source: str | None = None,
    timeout: float = 5.0,
    allow_loss: bool = False,
    reset: bool = True,
) -> dict[int, str]:
    """Ask over many flows at once: source port → who answered.

    An ``int`` means that many ports from ``FIRST_PORT`` on. A flow without an answer raises
    ``LabError``, or with ``allow_loss`` is not in the result.
    """
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    opened: dict[int, socket.socket] = {}
    try:
        for number in _ports(source_ports):
            opened[number] = _open(host, kind, vip, number, source)
        asked: dict[int, Any] = {}
        for number, made in opened.items():
            if kind == socket.SOCK_STREAM:
                asked[number] = TcpFlow(host, made, vip, port).connect()
                if reset:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            else:
                asked[number] = _udp(made, vip, port, b"?")
        what = f"{host.name} to {vip} port {port}/{protocol} from"
        return on_loop(_all(asked, what, timeout, allow_loss))
    finally:
        for made in opened.values():
            made.close()


def _ports(source_ports: Iterable[int] | int) -> Iterable[int]:
    if isinstance(source_ports, int):
        return range(FIRST_PORT, FIRST_PORT + source_ports)
    return source_ports
