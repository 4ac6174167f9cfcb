"""A million connections at once: they are counted, least-connections goes by them, a drain ends.

::

    client-1             lb, with the daemon          backend-1 … 3
        │                        │                        │   (VIPs on lo)
    ════╧════════════════════════╧════════════════════════╧════  lan

Only in `make soak`. The connections are put into the tables as packets would have put them there:
nobody sends a million SYNs here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import vip_of
from support.running import Running
from tula.dataplane.nft.lookup3 import slot_of
from tula.lab import Host, Lab, flat, flows, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

FLOWS, ONE_IN, SEED = 1_000_000, 32, 0x73616D70
PORTS = range(10_000, 60_000)
BATCH = 50_000


def put(host: Host, marks: list[int], vip: str) -> None:
    """So many connections of each of these backends, and those of them that are of the sample."""
    held, sample = [], []
    number, port = int(IPv4Address(vip)), 80
    for n in range(FLOWS):
        client, source = IPv4Address(0x0A630000 + n // len(PORTS)), PORTS[n % len(PORTS)]
        key = f"{int(client):#x} . {source} . {number:#x} . {port}"
        entry = f"{key} timeout 1h : {marks[n % len(marks)]}"
        held.append(entry)
        if not slot_of(client, source, SEED, ONE_IN):
            sample.append(entry)
        if len(held) == BATCH:
            for name, entries in (("tcp4_1048576", held), ("sample4_131072", sample)):
                text = f"add element netdev tula {name} {{ {', '.join(entries)} }}"
                host.run(["nft", "-f", "-"], input=text, timeout=900)
            held, sample = [], []


def marks_of(host: Host) -> dict[str, int]:
    """The backend ids by address, as the table shows them."""
    listed = host.run(["nft", "list", "map", "netdev", "tula", "nexthop4_1024"]).stdout
    found = re.findall(r"(0x[0-9a-f]+) [^:,]*: ([0-9.]+)", listed)
    return {address: int(mark, 16) for mark, address in found}


if os.environ.get("TULA_SOAK"):

    @pytest.mark.timeout(3600)
    def test_least_connections_goes_by_a_million(lab: Lab, tmp_path: Path) -> None:
        network = flat(lab, backends=3, ipv6=False)
        for backend in network.backends:
            serve_tcp(backend, [80])
        vip = vip_of(network, 4)
        service = service_of(network, scheduler="least-connections")
        path = write_config(tmp_path / "tula.yaml", {"web": service}, connections={"size": 1 << 20})
        with Running(network.lb, path) as daemon:
            assert daemon.states()
            marks = marks_of(network.lb)
            first, second, _ = (marks[b.addresses("eth0")[0]] for b in network.backends)
            put(network.lb, [first, first, first, second], vip)

            def counted() -> dict[str, int]:
                return {name: b["connections"] or 0 for name, b in daemon.backends().items()}

            wait_until(
                lambda: abs(sum(counted().values()) - FLOWS) < FLOWS / 40, 300, "a count of all"
            )
            found = counted()
            print(f"estimated: {found}")
            assert found["web/backend-1"] == pytest.approx(750_000, rel=0.03)
            assert found["web/backend-2"] == pytest.approx(250_000, rel=0.05)
            assert all(b["connections_estimated"] for b in daemon.backends().values())
            assert not daemon.status()["daemon"]["problems"]

            def shares() -> Counter[str]:
                start = next(starts)
                return Counter(
                    flows(network.client, vip, 80, range(start, start + 200), "tcp").values()
                )

            starts = iter(range(20_000, 60_000, 200))
            wait_until(lambda: shares()["backend-3"] > 150, 300, "the share of who has none")
            assert shares()["backend-1"] < 30
            call_tula(network.lb, "drain", "web/backend-3")
            call_tula(network.lb, "drain", "web/backend-3", "--wait")
