"""Clients behind an interface without an Ethernet header: tun, and tunnels of IP.

::

    client-1 ═══ tun0 ═══ lb ──────────── backend-1 … 3
                           │ eth0           │   (VIPs on lo, routed to the balancer)
                     ══════╧════════════════╧══════  lan

WireGuard and PPP look the same: what arrives begins with its IP header.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import ASK, FAMILIES, PROTOCOLS, vip_of
from support.tun import TunnelByHand
from tula.lab import Host, Lab, Network, flat, flows, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

OWN = {4: ("10.8.0.1", "10.8.0.2"), 6: ("fd08::1", "fd08::2")}
"""The client's address and the balancer's in the tunnel."""


def by_kernel(kind: str, *options: str) -> Callable[[Network], AbstractContextManager[Any]]:
    """A tunnel of the kernel's own, over the lan."""

    def make(network: Network) -> AbstractContextManager[Any]:
        ends = (network.client, network.lb)
        first, second = (host.addresses("eth0")[0] for host in ends)
        for host, local, remote in ((ends[0], first, second), (ends[1], second, first)):
            made = ["type", kind, "local", local, "remote", remote, *options]
            host.run(["ip", "link", "add", "tun0", *made])
            host.run(["ip", "link", "set", "tun0", "up"])
        return nullcontext()

    return make


KINDS = {
    "tun": lambda network: TunnelByHand(network.client, network.lb),
    "gre": by_kernel("gre", "ttl", "64"),
    "sit": by_kernel("sit", "mode", "any"),
}


def reach(network: Network, client: Host, lb: Host) -> None:
    """Addresses in the tunnel, and routes: to the VIPs through it, and back by the balancer."""
    for family in FAMILIES:
        hers, its = OWN[family]
        length = 30 if family == 4 else 126
        client.add_address("tun0", f"{hers}/{length}")
        lb.add_address("tun0", f"{its}/{length}")
        vip, full = vip_of(network, family), 32 if family == 4 else 128
        ip = ["ip", f"-{family}", "route", "replace"]
        client.run([*ip, f"{vip}/{full}", "dev", "tun0", "src", hers])
        gateway = next(a for a in lb.addresses("eth0") if (":" in a) == (family == 6))
        for backend in network.backends:
            backend.run([*ip, f"{hers}/{full}", "via", gateway])


@pytest.mark.parametrize(
    "kind",
    [
        "tun",
        pytest.param("gre", marks=pytest.mark.link_kinds("gre")),
        pytest.param("sit", marks=pytest.mark.link_kinds("sit")),
    ],
)
def test_they_are_served_like_others(lab: Lab, tmp_path: Path, kind: str) -> None:
    network = flat(lab, clients=1)
    client, lb = network.client, network.lb
    for backend in network.backends:
        serve_tcp(backend, [80, 8001, 8005])
        serve_udp(backend, [80, 8001, 8005])
    lb.forwarding()
    for name in ("all", "eth0"):
        lb.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", 0)
    service = service_of(network, protocol=["tcp", "udp"], ports=[80, "8000-8010"], announce=False)
    with KINDS[kind](network):
        reach(network, client, lb)
        configuration = write_config(tmp_path / "tula.yaml", {"web": service}, ("eth0", "tun0"))
        call_tula(lb, "apply", "-f", configuration)
        for family in FAMILIES:
            vip = vip_of(network, family)
            for protocol in PROTOCOLS:
                first = flows(client, vip, 80, 30, protocol)
                assert len(set(first.values())) == 3
                # Known by now, and by the second packet hot.
                for _ in range(2):
                    assert flows(client, vip, 80, 30, protocol) == first
                assert ASK[protocol](client, vip, 8005).startswith("backend-")
        assert call_tula(lb, "apply", "-f", configuration).stdout == "nothing changed\n"
        # Nowhere to put the source MAC that tells others of a flow: they are not told, and that is
        # all. A MAC written all the same would stand in the IP header.
        others = write_config(
            tmp_path / "pair.yaml",
            {"web": service},
            ("eth0", "tun0"),
            load_balancers={"lb1": lb.addresses("eth0")[0], "lb2": "10.9.0.3"},
            high_availability={
                "bgp": {"as": 65001, "routers": {"10.9.0.1": 65000}},
                "flows": "all",
            },
        )
        call_tula(lb, "apply", "-f", others)
        for family in FAMILIES:
            vip = vip_of(network, family)
            for protocol in PROTOCOLS:
                assert len(set(flows(client, vip, 8001, 30, protocol).values())) == 3
        sent = lb.run(["nft", "list", "counter", "netdev", "tula", "flows_sent"]).stdout
        assert "packets 0 " in sent
