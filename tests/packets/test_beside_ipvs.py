"""What IPVS loses where Tula loses nothing: the active balancer of a pair dies after a change, or
the router cannot decide between the two.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1 … -3      (VIPs on lo)

Only in `make soak`, in the VM: this needs Debian's kernel, which has IPVS.
"""

from __future__ import annotations

import itertools
import os
import time
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from support.balancers import Balancers
from support.connections import Connections, Found
from tula.kernel.announce import arp_announcement
from tula.lab import Cluster, Host, Lab, pair, send_frame

pytestmark = [pytest.mark.kernel, pytest.mark.link_kinds("sit")]

COUNT = 60
FLIPS = 160
"""How often the VIP's MAC changes at the router, 16 times a second."""


class Ipvs:
    """IPVS on both balancers, by direct routing; ``sync``: with its sync daemons."""

    def __init__(self, network: Cluster, scheduler: str, *, sync: bool) -> None:
        self.network = network
        self.vip = network.vip4
        for lb in network.lbs:
            lb.run(["modprobe", "-a", "ip_vs", f"ip_vs_{scheduler}"])
            lb.add_address("lo", f"{self.vip}/32")
            lb.forwarding(True)
            for scope in ("all", "eth0"):
                lb.write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
            self.tell(lb, "-A", "-t", f"{self.vip}:80", "-s", scheduler)
            for kind in ("master", "backup") if sync else ():
                self.tell(lb, "--start-daemon", kind, "--mcast-interface", "eth0", "--syncid", "1")
        for number in (1, 2):
            self.add(number)

    def tell(self, lb: Host, *words: str) -> None:
        """ipvsadm."""
        lb.run(["ipvsadm", *words])

    def add(self, number: int) -> None:
        """A backend."""
        backend = self.network.backend(f"backend-{number}").addresses("eth0")[0]
        for lb in self.network.lbs:
            self.tell(lb, "-a", "-t", f"{self.vip}:80", "-r", backend, "-g", "-w", "1")


def after_a_change(network: Cluster, tula: Balancers | None, ipvs: Ipvs | None) -> Found:
    """Connections by the first balancer, a third backend, then the second balancer."""
    first, second = network.lbs
    network.route(first)
    with Connections(network.client, [network.vip4], 80, COUNT, 2.0) as opened:
        if tula is not None:
            tula.apply(b1=100, b2=100, b3=100)
        if ipvs is not None:
            ipvs.add(3)
        for _ in range(3):
            opened.wait_for_answers()
        network.route(second)
        opened.wait_for_answers()
    return opened.found


def while_arp_flips(network: Cluster) -> Found:
    """Both balancers announce the VIP in turn, so packets of one connection go through both."""
    router, vip = network.gateway, network.vip4
    (dev,) = (
        after
        for word, after in itertools.pairwise(
            router.run(["ip", "route", "get", vip]).stdout.split()
        )
        if word == "dev"
    )

    def enter(lb: Host, state: str) -> None:
        """Whoever is routed to answers no ARP request for the VIP."""
        router.run(["ip", "neigh", "replace", vip, "lladdr", lb.mac(), "dev", dev, "nud", state])

    enter(network.lbs[0], "reachable")
    with Connections(network.client, [vip], 80, COUNT, 1.0) as opened:
        for lb in itertools.islice(itertools.cycle(network.lbs), FLIPS):
            mac = bytes.fromhex(lb.mac().replace(":", ""))
            send_frame(lb, "eth0", arp_announcement(IPv4Address(vip), mac))
            time.sleep(1 / 16)
        enter(network.lbs[0], "permanent")
        opened.wait_for_answers()
    return opened.found


if os.environ.get("TULA_SOAK"):

    @pytest.mark.parametrize("kind", ["tula", "rr", "mh"])
    def test_connections_broken_while_arp_flips(lab: Lab, tmp_path: Path, kind: str) -> None:
        network = pair(lab, backends=3)
        tula = Balancers(network, tmp_path)
        tula.slots = 251
        tula.serve()
        before = [lb.counters() for lb in network.lbs]
        if kind == "tula":
            tula.apply(b1=100, b2=100)
        else:
            Ipvs(network, kind, sync=False)
        found = while_arp_flips(network)
        print(f"{kind}, 16 flips a second: {found}")
        for lb, then in zip(network.lbs, before, strict=True):
            assert (lb.counters() - then).rx_packets > COUNT, f"{lb.name} got its part"
        if kind == "tula":
            assert found.broken == 0, found
        else:
            assert found.broken > COUNT / 10, found

    @pytest.mark.parametrize("kind", ["tula", "rr", "mh", "rr with its sync daemon"])
    def test_connections_broken(lab: Lab, tmp_path: Path, kind: str) -> None:
        network = pair(lab, backends=3)
        tula = Balancers(network, tmp_path)
        tula.slots = 251
        tula.serve()
        ipvs = None
        if kind == "tula":
            tula.apply(b1=100, b2=100)
        else:
            scheduler, _, more = kind.partition(" ")
            ipvs = Ipvs(network, scheduler, sync=bool(more))
        found = after_a_change(network, None if ipvs else tula, ipvs)
        print(f"{kind}: {found}")
        if kind == "tula":
            assert found.broken == 0, found
        elif "sync" not in kind:
            assert found.broken > COUNT / 10, found
