"""Direct Server Return by hand: a rule set in the lab's balancer, no Tula.

It proves the ground on which the packet tests of Tula stand::

    client-1 ─▶ (router ─▶) lb ─fwd▶ backend-1 … 3
        ◀────── (router) ◀──────────────┘
"""

from __future__ import annotations

from collections import Counter

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tula.lab import (
    Capture,
    Lab,
    Network,
    ask_all,
    flat,
    flows,
    routed,
    serve_http,
    serve_tcp,
    serve_udp,
    tcp_ask,
    tcp_flows,
)

pytestmark = pytest.mark.kernel

RULES = """
table netdev tula {
  map slots { typeof numgen inc mod 8 : meta mark; size 8;
    elements = { 0 : 1, 1 : 2, 2 : 3, 3 : 1, 4 : 2, 5 : 3, 6 : 1, 7 : 2 }
  }
  map via4 { type mark : ipv4_addr; size 8; counter;
    elements = { 1 : 10.9.0.11, 2 : 10.9.0.12, 3 : 10.9.0.13 }
  }
  map via6 { type mark : ipv6_addr; size 8; counter;
    elements = { 1 : fd09::11, 2 : fd09::12, 3 : fd09::13 }
  }
  chain svc4 {
    meta mark set jhash ip saddr . th sport mod 8 seed 0x1234 map @slots \
      fwd ip to meta mark map @via4 device "eth0"
  }
  chain svc6 {
    meta mark set jhash ip6 saddr . th sport mod 8 seed 0x1234 map @slots \
      fwd ip6 to meta mark map @via6 device "eth0"
  }
  chain ingress { type filter hook ingress device "eth0" priority -500;
    ip daddr 10.9.0.100 meta l4proto { tcp, udp } th dport { 53, 80, 8080 } goto svc4
    ip6 daddr fd09::100 meta l4proto { tcp, udp } th dport { 53, 80, 8080 } goto svc6
  }
}
"""


@pytest.fixture(params=[flat, routed], ids=["flat", "routed"])
def network(request: pytest.FixtureRequest, lab: Lab) -> Network:
    made: Network = request.param(lab)
    made.announce()
    made.lb.run(["nft", "-f", "-"], input=RULES)
    for backend in made.backends:
        serve_http(backend, 80)
        serve_tcp(backend, [8080])
        serve_udp(backend, [53])
    return made


@pytest.mark.parametrize("family", [4, 6])
def test_flows_reach_every_backend_and_the_vip_answers(network: Network, family: int) -> None:
    vip = network.vip4 if family == 4 else network.vip6
    for protocol, port in (("tcp", 8080), ("udp", 53)):
        for client in network.clients:
            answers = flows(client, vip, port, 200, protocol)
            assert len(answers) == 200
            assert set(Counter(answers.values())) == {"backend-1", "backend-2", "backend-3"}
            assert flows(client, vip, port, 200, protocol) == answers, "a flow has its backend"


@pytest.mark.parametrize("family", [4, 6])
def test_answers_do_not_pass_the_balancer(network: Network, family: int) -> None:
    url = "http://10.9.0.100" if family == 4 else "http://[fd09::100]"
    size = 20_000_000
    balancer, client = network.lb.counters(), network.client.counters()
    network.client.run(["curl", "-sSo/dev/null", f"{url}/bytes/{size}"])
    forwarded = network.lb.counters() - balancer
    assert (network.client.counters() - client).rx_bytes > size
    assert forwarded.tx_bytes < size / 20, "requests and acknowledgements only"
    assert forwarded.rx_bytes < size / 20


@pytest.mark.parametrize("family", [4, 6])
def test_nothing_above_the_macs_is_rewritten(network: Network, family: int) -> None:
    vip = network.vip4 if family == 4 else network.vip6
    captures = {backend.name: Capture(backend).start() for backend in network.backends}
    with Capture(network.lb) as at_lb:
        chosen = tcp_ask(network.client, vip, 8080, source_port=40000)
    arrived = [
        frame for frame in map(Ether, captures[chosen].frames(outgoing=False)) if TCP in frame
    ]
    assert arrived
    layer = IP if family == 4 else IPv6
    for frame in arrived:
        assert frame.src == network.lb.mac()
        assert frame.dst == network.backend(chosen).mac()
        assert frame[layer].dst == vip
        assert (frame[TCP].sport, frame[TCP].dport) == (40000, 8080)
    came = [f for f in map(Ether, at_lb.frames(outgoing=False)) if TCP in f]
    ttl = "ttl" if family == 4 else "hlim"
    assert getattr(arrived[0][layer], ttl) == getattr(came[0][layer], ttl) - 1
    assert all(f[layer].src != vip for f in came), "no answer came back to the balancer"
    for name, capture in captures.items():
        capture.stop()
        if name != chosen:
            assert not [f for f in map(Ether, capture.frames()) if TCP in f]


def test_open_connections_are_asked_again(network: Network) -> None:
    made = tcp_flows(network.client, network.vip4, 8080, range(30000, 30100))
    first = {flow.source_port: flow.backend for flow in made}
    assert ask_all(made) == first
    network.backend("backend-1").set_link("eth0", False)
    left = ask_all(made, timeout=0.5, allow_loss=True)
    assert left == {port: name for port, name in first.items() if name != "backend-1"}
    for flow in made:
        flow.close(reset=True)
