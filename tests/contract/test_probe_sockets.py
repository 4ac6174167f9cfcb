"""Sockets of probes in the kernel: what they carry, and real echoes.

::

        lb  eth0 10.0.0.2/16, 2001:db8::2/64
             │
    ═════════╧═════════════════════╤═════  switch
                                   │
                  backend  eth0 10.0.0.11/16, 2001:db8::11/64
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tula.health.check import FailureKind, Outcome
from tula.health.probes import send_probe
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.lab import Lab, require_private_namespace
from tula.model.errors import KernelError
from tula.model.health import ProbeTarget
from tula.model.monitor import HealthMonitor, IcmpProbe, TcpProbe, UdpProbe

pytestmark = pytest.mark.kernel

FAMILIES = pytest.mark.parametrize(
    ("own", "other"), [("10.0.0.2", "10.0.0.11"), ("2001:db8::2", "2001:db8::11")]
)
OTHERS = pytest.mark.parametrize("other", ["10.0.0.11", "2001:db8::11"])
ECHO = HealthMonitor(IcmpProbe(), timeout=2.0)


@pytest.fixture
def sockets() -> Iterator[KernelProbeSockets]:
    """In the load balancer's namespace."""
    with Lab() as lab:
        switch = lab.switch()
        lb = lab.host("lb", switch, "10.0.0.2/16", "2001:db8::2/64")
        lab.host("backend", switch, "10.0.0.11/16", "2001:db8::11/64")
        with lb.enter():
            require_private_namespace()
            yield KernelProbeSockets()


def through(own: str, other: str, port: int = 0) -> ProbeTarget:
    return ProbeTarget(ip_address(other), port, ip_address(own), 0x8000_0001, 0xFFFF_0001)


def option(opened: socket.socket, name: int) -> int:
    return struct.unpack("=I", opened.getsockopt(socket.SOL_SOCKET, name, 4))[0]


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_the_data_path_knows_them(
    sockets: KernelProbeSockets, own: str, other: str, kind: int
) -> None:
    with sockets.open(through(own, other), kind) as opened:
        assert opened.getsockname()[:2] == (own, 0), "the port is chosen with the other end"
        assert option(opened, socket.SO_MARK) == 0x8000_0001
        assert option(opened, socket.SO_PRIORITY) == 0xFFFF_0001
        assert opened.gettimeout() == 0.0
        opened.connect_ex((other, 9))
        assert opened.getsockname()[1] > 0
    with sockets.open(ProbeTarget(ip_address(other)), kind) as plain:
        assert option(plain, socket.SO_MARK) == option(plain, socket.SO_PRIORITY) == 0


@FAMILIES
def test_an_echo_is_answered(sockets: KernelProbeSockets, own: str, other: str) -> None:
    for target in (ProbeTarget(ip_address(other)), through(own, other)):
        outcome = asyncio.run(send_probe(ECHO, target, sockets))
        assert outcome.passed, outcome
        assert outcome.evidence == f"icmp to {other}: echo reply"


@OTHERS
def test_one_that_listens_hears_its_own_reply_whatever_others_packets_meet(
    sockets: KernelProbeSockets, other: str
) -> None:
    """An unconnected raw socket with RECVERR is told of every packet that meets an error."""
    family = socket.AF_INET6 if ":" in other else socket.AF_INET

    async def run() -> None:
        target = ProbeTarget(ip_address(other))
        listening = replace(ECHO, probe=IcmpProbe(errors=True))
        asked = asyncio.gather(*(send_probe(listening, target, sockets) for _ in range(20)))
        for _ in range(20):
            with socket.socket(family, socket.SOCK_DGRAM) as nobody:
                nobody.sendto(b"?", (other, 9))  # refused by an ICMP error
            await asyncio.sleep(0)
        assert all(outcome.passed for outcome in await asked)

    asyncio.run(run())


@OTHERS
def test_many_echoes_at_once_keep_apart(sockets: KernelProbeSockets, other: str) -> None:
    async def run() -> None:
        target = ProbeTarget(ip_address(other))
        outcomes = await asyncio.gather(*(send_probe(ECHO, target, sockets) for _ in range(50)))
        assert all(outcome.passed for outcome in outcomes)

    asyncio.run(run())


@OTHERS
def test_a_host_that_is_not_there(sockets: KernelProbeSockets, other: str) -> None:
    nobody = ip_address(other) + 1
    kinds = [HealthMonitor(probe, timeout=5.0) for probe in (IcmpProbe(), TcpProbe(), UdpProbe())]

    async def ask_at_once() -> list[Outcome]:
        """The kernel looks for a neighbour for three seconds."""
        target = ProbeTarget(nobody, 80)
        return await asyncio.gather(*(send_probe(monitor, target, sockets) for monitor in kinds))

    for outcome in asyncio.run(ask_at_once()):
        assert (outcome.passed, outcome.failure) == (False, FailureKind.UNREACHABLE)
        assert outcome.evidence.endswith("no route to host")


def test_a_source_that_is_not_here(sockets: KernelProbeSockets) -> None:
    target = through("10.0.0.99", "10.0.0.11")
    with pytest.raises(KernelError, match="its source address is not on this machine"):
        sockets.open(target, socket.SOCK_STREAM)
    outcome = asyncio.run(send_probe(HealthMonitor(TcpProbe()), target, sockets))
    assert outcome.passed is None
