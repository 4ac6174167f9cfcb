"""Uploads through tunnels: no segment of full size is lost, or its sender is told.

The network is that of test_tunnels.py. A network card may hand single frames to the balancer, or
aggregates far above the MTU (GRO); backends may ask for smaller segments (the MSS clamp of the
instructions), or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.packets import FAMILIES, vip_of
from support.tunnelled import UPLOADS, Tunnelled
from support.uploads import Sink, Upload, upload
from tula.lab import set_offload

pytestmark = pytest.mark.kernel

SIZE = 20_000_000 if os.environ.get("TULA_SOAK") else 2_000_000

TOLD = {
    ("ipip", 4, 6): 1480,
    ("ipip", 6, 6): 1460,
    ("gre", 6, 6): 1456,
    ("gue", 4, 6): 1468,
    ("gue", 6, 6): 1448,
}
"""By tunnel, outer and inner version: the MTU that the tunnel itself tells the client. All others
stay at 1500, and the outer packet is fragmented."""

LOST = {("ipip", 6, 4), ("gre", 6, 4), ("gue", 6, 4), ("vxlan", 6, 4), ("vxlan", 6, 6)}
"""Over IPv6 nothing is fragmented on the way (ip6_output.c), and these tell nobody: they need the
clamp, whether packets come one by one or in aggregates."""


@contextmanager
def receiving(tunnelled: Tunnelled, how: str) -> Iterator[None]:
    """The balancer's card hands over: what a veth brings (64 kB), single frames, or its own
    aggregates of those."""
    network = tunnelled.network
    assert network.router is not None
    sender = network.router
    if how != "veth":
        set_offload(sender, "eth0", tso=False, gso=False)
        set_offload(tunnelled.lb, "eth0", gro=how == "gro")
    try:
        yield
    finally:
        set_offload(sender, "eth0", tso=True, gso=True)
        set_offload(tunnelled.lb, "eth0", gro=False)


@pytest.fixture
def sinks(tunnelled: Tunnelled) -> Iterator[Tunnelled]:
    """Servers that read what is uploaded; what clients learnt of the path is forgotten after."""
    made = [Sink(backend, [UPLOADS], None).start() for backend in tunnelled.network.backends]
    yield tunnelled
    for sink in made:
        sink.close()
    for version in (4, 6):
        tunnelled.client.write_sysctl(f"net.ipv{version}.route.flush", 1)


@contextmanager
def unclamped(tunnelled: Tunnelled) -> Iterator[None]:
    """Backends that ask for no smaller segments."""
    for backend in tunnelled.network.backends:
        backend.run(["nft", "delete", "chain", "inet", "tula_backend", "answer"])
    try:
        yield
    finally:
        tunnelled.clamp()


def case(tunnelled: Tunnelled, family: int) -> tuple[str, int, int]:
    outer = 6 if ":" in tunnelled.web["backends"]["backend-1"]["address"] else 4
    return tunnelled.web["tunnel"], outer, family


def uploads(tunnelled: Tunnelled, family: int, timeout: float) -> dict[str, Upload]:
    """One upload for each way in which the balancer's card hands packets over."""
    found = {}
    for how in ("veth", "single", "gro"):
        with receiving(tunnelled, how):
            vip = vip_of(tunnelled.network, family)
            found[how] = upload(tunnelled.client, vip, UPLOADS, SIZE, timeout)
    print(f"{case(tunnelled, family)}: {found}")
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_clamp_segments_fit(sinks: Tunnelled, family: int) -> None:
    for found in uploads(sinks, family, 60).values():
        assert found.arrived == SIZE
        assert found.mtu == 1500, "nothing had to be told"
        assert found.mss < 1460


@pytest.mark.parametrize("family", FAMILIES)
def test_without_it_they_get_through_or_the_client_is_told(sinks: Tunnelled, family: int) -> None:
    lost = case(sinks, family) in LOST
    with unclamped(sinks):
        uploaded = uploads(sinks, family, 2 if lost else 60)
    for found in uploaded.values():
        if lost:
            assert found.arrived == 0, "the kernel tells now, or fragments: take it out of LOST"
        else:
            assert found.mtu == TOLD.get(case(sinks, family), 1500)
            assert found.arrived == SIZE
