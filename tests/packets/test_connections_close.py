"""What a connection is in the table from its first SYN to its last ACK.

::

    client-1             lb           backend-1 … 4
         │               │                │   (VIPs on lo)
    ═════╧═══════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from support.entries import Held4, entries4
from support.lab_configurations import backends_of
from support.packets import FAMILIES, ip_to, vip_of
from support.serving import Serving, silent
from tula.dataplane.nft.flow_maps import HOT
from tula.lab import (
    Capture,
    send_frame,
    wait_until,
)
from tula.lab.servers import StreamServer
from tula.lab.wait import event_loop

pytestmark = pytest.mark.kernel


def is_tcp(frame: bytes, port: int, flags: str) -> bool:
    """Whether it is a TCP segment from or to this client's port with these flags."""
    found = Ether(frame).getlayer(TCP)
    return found is not None and port in (found.sport, found.dport) and found.flags == flags


def entry(serving: Serving, kind: str, port: int) -> Held4 | None:
    return entries4(serving.lb, kind).get(port)


def test_lives_follow_a_connection_from_syn_to_rst(serving: Serving) -> None:
    sent = ip_to(serving.client, serving.network.vip4) / TCP(sport=22000, dport=80, flags="S")
    syn = Ether(src=serving.client.mac(), dst=serving.lb.mac()) / sent
    with silent(serving.client), Capture(serving.client) as capture:  # no RST for the SYN-ACK
        send_frame(serving.client, "eth0", bytes(syn))
        capture.wait(lambda frame: is_tcp(frame, 22000, "SA"))
        half = entry(serving, "tcp4", 22000)
    assert half is not None
    assert half.seconds <= 60
    (flow,) = serving.connect(4, [22001])
    opened = entry(serving, "tcp4", 22001)
    assert opened is not None
    assert 7200 < opened.seconds <= 7200 + HOT
    flow.close(reset=True)
    wait_until(lambda: entry(serving, "tcp4", 22001) is None, what="the RST")
    ended = entry(serving, "closed4", 22001)
    assert ended is not None
    assert ended.backend == opened.backend
    assert ended.seconds <= 60


def test_a_client_that_closes_first_leaves_no_long_entry(serving: Serving) -> None:
    (flow,) = serving.connect(4, [23000])
    with Capture(serving.client) as capture:
        flow.close()
        # FIN, its answer, and the ACK of that: the last packet looks like any other.
        capture.wait(lambda frame: is_tcp(frame, 23000, "FA"), outgoing=False)
        capture.wait(lambda frame: is_tcp(frame, 23000, "A"), outgoing=True)
    wait_until(lambda: entry(serving, "tcp4", 23000) is None, what="the end")
    closing = entry(serving, "closed4", 23000)
    assert closing is not None
    assert closing.seconds <= 60


class Farewell(StreamServer):
    """Says its name, waits for the client's FIN and then for leave to speak, at length."""

    leave: asyncio.Event

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(self.name.encode() + b"\n")
        await reader.read()
        self.requests += 1
        await self.leave.wait()
        writer.write(bytes(LONG))
        await writer.drain()


LONG = 500_000


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_that_only_listens_after_its_fin_keeps_its_backend(
    serving: Serving, family: int
) -> None:
    """The ACKs for an answer of many windows must reach the backend that sends it."""
    serving.web["ports"] = [80, 90 + family]
    serving.apply()
    servers = [
        backend.owns(Farewell(backend, [90 + family], None)) for backend in serving.network.backends
    ]
    leave = asyncio.Event()
    for server in servers:
        server.leave = leave
        server.start()
    vip = vip_of(serving.network, family)
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    opened = [serving.client.socket(kind, socket.SOCK_STREAM) for _ in range(20)]
    for made in opened:
        made.settimeout(5)
        made.connect((vip, 90 + family))
        made.recv(100)
        made.shutdown(socket.SHUT_WR)
    wait_until(lambda: sum(server.requests for server in servers) == 20, what="20 FINs")
    serving.web["backends"] = backends_of(*serving.network.backends[1:3]) | backends_of(
        serving.network.backends[0], weight=0
    )
    serving.web["affinity"] = "client"
    serving.apply()
    event_loop().call_soon_threadsafe(leave.set)
    for made in opened:
        with made:
            got = 0
            while data := made.recv(1 << 16):
                got += len(data)
            assert got == LONG


@pytest.mark.parametrize("family", FAMILIES)
def test_a_syn_sent_again_sticks(serving: Serving, family: int) -> None:
    serving.web["scheduler"] = "rr"
    serving.apply()
    client, backends = serving.client, serving.network.backends[:3]
    segment = TCP(sport=25000 + family, dport=80, flags="S", seq=1)
    sent = ip_to(client, vip_of(serving.network, family)) / segment
    frame = bytes(Ether(src=client.mac(), dst=serving.lb.mac()) / sent)
    with silent(client), ExitStack() as stack:
        captures = [stack.enter_context(Capture(backend)) for backend in backends]

        def came() -> list[int]:
            return [
                sum(is_tcp(seen, 25000 + family, "S") for seen in capture.frames(outgoing=False))
                for capture in captures
            ]

        for count in range(1, 8):
            send_frame(client, "eth0", frame)
            wait_until(lambda: sum(came()) == count, what="the SYN")  # noqa: B023
    assert sorted(came()) == [0, 0, 7]
