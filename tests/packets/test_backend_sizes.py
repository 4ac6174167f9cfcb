"""Large uploads and downloads by joined backends, also where only one side has jumbo frames.

::

    client-1 ── wan ── router ── far ── backend-1
                         │
                    lan ═╧═ lb

The network is that of test_backend_join.py. With jumbo frames clients (wan), or
backends (far), have an MTU of 9,000 on their own wire, and everyone else has 1,500.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from support.joined import KINDS, Joined
from support.packets import FAMILIES, vip_of
from support.uploads import Sink, download, upload
from tula.lab import Host, Lab, set_offload
from tula.lab.servers import StreamServer

pytestmark = pytest.mark.kernel

SOAK, EMULATED = os.environ.get("TULA_SOAK"), os.environ.get("TULA_VM")
SIZE = 100_000_000 if SOAK else 2_000_000 if EMULATED else 20_000_000
TIMEOUT = 120.0
UP, DOWN = 80, 81


class Source(StreamServer):
    """Sends ``SIZE`` bytes to whoever asks."""

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readline()
        chunk = bytes(1 << 18)
        left = SIZE
        while left:
            writer.write(chunk[:left])
            left -= min(left, len(chunk))
            await writer.drain()


def jumbo(joined: Joined, side: str) -> None:
    """Gives one side's hosts, switch and router's port an MTU of 9,000; frames are real ones."""
    lab, router = joined.network.lab, joined.network.router
    assert router is not None
    hosts: dict[str, list[tuple[Host, str]]] = {
        "wan": [(joined.client, "eth0"), (router, "eth1")],
        "far": [*((host, "eth0") for host in joined.backends), (router, "eth2")],
    }
    for host, interface in [*hosts["wan"], *hosts["far"], (router, "eth0")]:
        set_offload(host, interface, tso=False, gso=False)
    if side != "none":
        lab.switches[side].set_mtu(9000)
        for host, interface in hosts[side]:
            host.set_mtu(interface, 9000)


def sides(kind: tuple[str, int]) -> list[str]:
    """Of the kinds that need the VM two, that with the longest headers among them, and one side."""
    if SOAK or kind[0] == "vxlan":
        return ["none", "wan", "far"]
    return ["far"] if kind in (("ipip", 4), ("gue", 6)) else []


@pytest.mark.parametrize(
    ("kind", "outer", "side"),
    [
        pytest.param(
            *kind, side, marks=pytest.mark.link_kinds(*needed), id=f"{kind[0]}-ipv{kind[1]}-{side}"
        )
        for kind, needed in KINDS.items()
        if kind[0] != "l2"
        for side in sides(kind)
    ],
)
def test_nothing_stalls(lab: Lab, tmp_path: Path, kind: str, outer: int, side: str) -> None:
    joined = Joined(lab, tmp_path, kind, outer, backends=1)
    joined.services["web"]["ports"] = [UP, DOWN]
    jumbo(joined, side)
    joined.join()
    host = joined.backends[0]
    host.owns(Sink(host, [UP], None).start())
    host.owns(Source(host, [DOWN], None).start())
    for family in FAMILIES:
        vip = vip_of(joined.network, family)
        up = upload(joined.client, vip, UP, SIZE, TIMEOUT)
        assert up.arrived == SIZE, up
        down = download(joined.client, vip, DOWN, TIMEOUT)
        assert down.arrived == SIZE, down
        print(
            f"{kind} over IPv{outer}, IPv{family} inside, jumbo: {side}: "
            f"{SIZE / 1e6:.0f} MB up in {up.seconds:.2f} s, down in {down.seconds:.2f} s"
        )
