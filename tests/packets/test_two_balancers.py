"""Two balancers on one wire: no request is doubled, and none goes round for ever.

::

    client-1              lb              lb-2            backend-1, -2
         │                 │               │                   │   (VIPs on lo)
    ═════╧═════════════════╧═══════════════╧═══════════════════╧═════  lan

    doubled:  the switch floods like a hub, lb-2 listens to all frames and has the same services
    loop:     each has the other as its only backend
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, Seen, Watch, ip_to, vip_of, watching
from tula.lab import Host, Lab, Network, flat, flows, send_frame, serve_udp, wait_until

pytestmark = pytest.mark.kernel


def second_balancer(network: Network) -> Host:
    """A further balancer on the same switch, with a state directory of its own."""
    made = network.lab.host("lb-2", network.lan, "10.9.0.3/24", "fd09::3/64")
    network.lab.ready()
    return made


def apply(host: Host, directory: Path, service: dict[str, Any]) -> None:
    """One service for one balancer."""
    configuration = write_config(directory / f"{host.name}.yaml", {"dns": service})
    InProcess(host).apply(configuration)


def packets_of(host: Host) -> int:
    """What the balancer counted for its one service."""
    return int(InProcess(host).status()["dns"]["packets"])


def take_all_frames(host: Host) -> None:
    """Edits the rules, as nobody should: frames for other machines count too."""
    chain = "netdev tula in.eth0"
    listed = host.run(["nft", "-a", "list", "chain", *chain.split()]).stdout.splitlines()
    guarded = [line.strip().partition(" # handle ") for line in listed if "pkttype" in line]
    for text, _, handle in guarded:
        unguarded = text.replace("meta pkttype host ", "").partition(" comment ")[0]
        verb = f"delete rule {chain} handle {handle}"
        if "vmap" in unguarded:
            verb = f"replace rule {chain} handle {handle} {unguarded}"
        host.run(["nft", "-f", "-"], input=verb)
    assert any("vmap" in text for text, _, _ in guarded)


def test_a_flooding_switch_and_a_promiscuous_balancer_double_nothing(
    lab: Lab, tmp_path: Path
) -> None:
    network = flat(lab, clients=1, backends=2, hub=True)
    other = second_balancer(network)
    dns = service_of(network, protocol="udp", ports=[53])
    apply(network.lb, tmp_path, dns)
    apply(other, tmp_path, dns | {"announce": False})
    servers = [serve_udp(backend, [53]) for backend in network.backends]
    for host in (network.lb, other):
        host.set_promiscuous("eth0")

    def ask() -> tuple[int, list[Seen]]:
        """How many datagrams were asked and how many served, and what lb-2 sent for it."""
        before = sum(server.requests for server in servers)
        with watching(other) as watch:
            asked = [flows(network.client, vip, 53, 50, "udp") for vip in network.vips]
        seen = [p for p in watch.packets(other, outgoing=False) if p.dport == 53]
        assert len(seen) >= 100, "each came to lb-2, for another MAC"
        assert sum(map(len, asked)) == 100
        wait_until(lambda: sum(server.requests for server in servers) >= before + 100)
        return sum(s.requests for s in servers) - before, watch.packets(other, outgoing=True)

    served, sent = ask()
    assert (served, sent) == (100, [])
    # And so it would be without what sorts such frames out: the test can fail.
    take_all_frames(other)
    assert len(ask()[1]) >= 100


@pytest.mark.parametrize("family", FAMILIES)
def test_balancers_that_are_each_others_backends_end_a_packet_with_its_ttl(
    lab: Lab, tmp_path: Path, family: int
) -> None:
    network = flat(lab, clients=1, backends=1)
    one, two = network.lb, second_balancer(network)
    vip = vip_of(network, family)
    hops = 64
    dns = service_of(network, vip=vip, protocol="udp", ports=[53])
    services = [dns | {"backends": backends_of(backend)} for backend in (two, one)]
    apply(one, tmp_path, services[0])
    apply(two, tmp_path, services[1] | {"announce": False})
    packet = ip_to(network.client, vip, hops) / UDP(sport=40000, dport=53) / b"round"
    frame = bytes(Ether(src=network.client.mac(), dst=one.mac()) / packet)

    def turns(watch: Watch) -> list[int]:
        """The TTLs with which the packet came to the two, the highest first."""
        seen = [p for h in (one, two) for p in watch.packets(h, outgoing=False) if p.dport == 53]
        return sorted((packet.hops for packet in seen), reverse=True)

    with watching(one, two, network.client) as watch:
        send_frame(network.client, "eth0", frame)
        wait_until(lambda: turns(watch)[-1:] == [1], what="the last turn")
        counted = packets_of(one) + packets_of(two)
        assert turns(watch) == list(range(hops, 0, -1)), "each turn took one from the TTL"
        assert counted == hops
        assert packets_of(one) + packets_of(two) == counted, "and it came to rest"
        assert not watch.packets(network.client, outgoing=False)
