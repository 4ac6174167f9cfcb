"""Direct Server Return on one subnet: what reaches a backend, and which way the answer goes.

::

    client-1, -2            lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan

    request:  client ─▶ lb ─▶ backend    the same packet, its TTL one lower, with new MACs
    answer:   backend ─▶ client          never by lb
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import ASK, FAMILIES, PROTOCOLS, address_of, udp_socket, watching
from tula.lab import VIP4, VIP6, Lab, Network, flat, serve_http, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

NAMES = {4: VIP4, 6: VIP6}
"""On these VIPs TCP servers say their name, on WEB they serve downloads, on BIG nothing yet."""
WEB = {4: "10.9.0.101", 6: "fd09::101"}
BIG = {4: "10.9.0.102", 6: "fd09::102"}


class Site(NamedTuple):
    """A network with one applied service, and the ports of it to ask."""

    network: Network
    ports: tuple[int, ...]


@pytest.fixture(
    scope="module",
    params=[([80], (80,)), (["8000-8010"], (8000, 8005, 8010)), ("any", (1, 31337, 65535))],
    ids=["one-port", "range", "any"],
)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    ports, asked = request.param
    with Lab() as lab:
        network = flat(lab, vips=[*NAMES.values(), *WEB.values(), *BIG.values()])
        service = service_of(network, protocol=["tcp", "udp"], ports=ports)
        configuration = write_config(tmp_path_factory.mktemp("lb") / "tula.yaml", {"web": service})
        call_tula(network.lb, "apply", "-f", configuration)
        for backend in network.backends:
            serve_tcp(backend, asked, list(NAMES.values()))
            serve_udp(backend, asked, list(NAMES.values()))
            serve_http(backend, asked, list(WEB.values()))
        yield Site(network, asked)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_arrives_as_it_was_sent_and_the_backend_itself_answers(
    site: Site, family: int, protocol: str
) -> None:
    network, vip = site.network, NAMES[family]
    client, lb = network.client, network.lb
    mine = address_of(client, family)
    for number, port in enumerate(site.ports):
        with watching(client, lb, *network.backends) as watch:
            name = ASK[protocol](client, vip, port, source_port=40000 + number)
            sent = watch.packets(client, outgoing=True)
            backend = network.backend(name)
            arrived = watch.wait(backend, len(sent), outgoing=False)
        assert len(arrived) == len(sent), "each once"
        for packet, original in zip(arrived, sent, strict=True):
            assert (original.to_mac, original.hops) == (lb.mac(), 64)
            expected = {"from_mac": lb.mac(), "to_mac": backend.mac(), "hops": 63}
            assert packet == original._replace(**expected)
            assert (packet.source, packet.sport) == (mine, 40000 + number)
            assert (packet.destination, packet.dport) == (vip, port)
        answers = watch.packets(client, outgoing=False)
        assert answers
        for answer in answers:
            assert (answer.from_mac, answer.to_mac) == (backend.mac(), client.mac())
            assert (answer.source, answer.sport) == (vip, port)
            assert (answer.destination, answer.dport) == (mine, 40000 + number)
            assert answer.hops == 64, "no hop between backend and client"
        assert not [packet for packet in watch.packets(lb) if packet.source == vip]
        assert not [
            p for other in network.backends if other != backend for p in watch.packets(other)
        ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_download_passes_the_balancer_by(site: Site, family: int) -> None:
    network, size = site.network, 5_000_000
    host = f"[{WEB[6]}]" if family == 6 else WEB[4]
    before, received = network.lb.counters(), network.client.counters()
    url = f"http://{host}:{site.ports[-1]}/bytes/{size}"
    network.client.run(["curl", "-sSf", "-o/dev/null", url])
    passed = network.lb.counters() - before
    print(f"IPv{family}: {size} bytes downloaded, the balancer sent {passed.tx_bytes}")
    assert (network.client.counters() - received).rx_bytes > size
    assert 0 < passed.tx_bytes < size / 20, "the request and acknowledgements"
    assert 0 < passed.rx_bytes < size / 20


@pytest.mark.parametrize("family", FAMILIES)
def test_large_udp_answers_pass_the_balancer_by(site: Site, family: int) -> None:
    network, vip, port = site.network, BIG[family], site.ports[0]
    large, count = bytes(1400), 200
    with ExitStack() as stack:
        servers = [
            stack.enter_context(udp_socket(backend, family, port, vip))
            for backend in network.backends
        ]
        client = stack.enter_context(udp_socket(network.client, family, 41000))
        client.connect((vip, port))  # answers from another address do not count
        before = network.lb.counters()
        client.send(b"?")
        ready = select.select(servers, [], [], 3.0)[0]
        assert len(ready) == 1, "one backend has the request"
        request, asker = ready[0].recvfrom(2000)
        assert (request, asker[:2]) == (b"?", (address_of(network.client, family), 41000))
        for _ in range(count):
            ready[0].sendto(large, asker)
            assert client.recv(2000) == large
    passed = network.lb.counters() - before
    print(f"IPv{family}: {count * len(large)} bytes of UDP, the balancer sent {passed.tx_bytes}")
    assert 0 < passed.tx_bytes < 1000 < count * len(large)
