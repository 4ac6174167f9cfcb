"""Which service a packet is for, and which of its backends may have it.

::

    client-1, -2            lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import (
    ASK,
    FAMILIES,
    PROTOCOLS,
    ip_to,
    udp_socket,
    vip_of,
    watching,
)
from tula.lab import (
    VIPS,
    Lab,
    LabError,
    Network,
    flat,
    flows,
    send_frame,
    serve_tcp,
    serve_udp,
    tcp_ask,
    udp_ask,
)

pytestmark = pytest.mark.kernel

BOTH = ["tcp", "udp"]


def serve(network: Network, *ports: int) -> None:
    """Every backend says its name on these TCP and UDP ports."""
    for backend in network.backends:
        serve_tcp(backend, ports)
        serve_udp(backend, ports)


def apply(network: Network, directory: Path, services: dict[str, Any]) -> None:
    """Writes the configuration and applies it."""
    InProcess(network.lb).apply(write_config(directory / "tula.yaml", services))


def test_every_port_of_a_list_on_every_vip(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, vips=[*VIPS, "10.9.0.101", "10.9.0.102", "fd09::101", "fd09::102"])
    listed, beside = [53, 80, 443, 8443, 9000, 9001, 9002], [52, 81, 8999, 9003]
    ports = [53, 80, 443, 8443, "9000-9002"]
    apply(network, tmp_path, {"web": service_of(network, protocol=BOTH, ports=ports)})
    serve(network, *listed, *beside)
    names = {backend.name for backend in network.backends}
    for vip in network.vips:
        for protocol in PROTOCOLS:
            assert {ASK[protocol](network.client, vip, port) for port in listed} <= names
        with watching(network.client, *network.backends) as watch:
            for port in beside:  # the balancer's own stack has nobody there
                with pytest.raises(LabError, match="refused"):
                    tcp_ask(network.client, vip, port)
        refusals = watch.packets(network.client, outgoing=False)
        assert {packet.from_mac for packet in refusals} == {network.lb.mac()}
        assert not [p for backend in network.backends for p in watch.packets(backend)]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exact_port_beats_a_range_and_a_range_any(lab: Lab, tmp_path: Path, family: int) -> None:
    network = flat(lab)
    kinds = {"exact": [80, 8011], "range": ["8000-8010"], "any": "any"}
    services = {
        name: service_of(network, protocol=BOTH, ports=ports, backends=backends_of(backend))
        for (name, ports), backend in zip(kinds.items(), network.backends, strict=True)
    }
    apply(network, tmp_path, services)
    expected = {
        "backend-1": [80, 8011],
        "backend-2": [8000, 8005, 8010],
        "backend-3": [1, 79, 81, 7999, 8012, 65535],
    }
    serve(network, *(port for ports in expected.values() for port in ports))
    vip = vip_of(network, family)
    for protocol in PROTOCOLS:
        for name, ports in expected.items():
            for port in ports:
                assert ASK[protocol](network.client, vip, port) == name, (protocol, port)


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_and_udp_of_one_port_together_or_apart(lab: Lab, tmp_path: Path, family: int) -> None:
    network = flat(lab)
    one, two, three = network.backends
    services = {
        "dns": service_of(network, protocol=BOTH, ports=[53], backends=backends_of(three)),
        "quic": service_of(network, protocol="udp", ports=[443], backends=backends_of(one)),
        "https": service_of(network, protocol="tcp", ports=[443], backends=backends_of(two)),
    }
    apply(network, tmp_path, services)
    serve(network, 53, 443)
    vip = vip_of(network, family)
    assert [tcp_ask(network.client, vip, port) for port in (53, 443)] == [three.name, two.name]
    assert [udp_ask(network.client, vip, port) for port in (53, 443)] == [three.name, one.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_0_takes_nothing_new(lab: Lab, tmp_path: Path, family: int) -> None:
    network = flat(lab)
    one, two, three = network.backends
    serve(network, 80)
    vip = vip_of(network, family)
    for weight, ports in ((100, range(20000, 20200)), (0, range(30000, 30200))):
        backends = backends_of(one, three) | backends_of(two, weight=weight)
        apply(network, tmp_path, {"web": service_of(network, protocol=BOTH, backends=backends)})
        for protocol in PROTOCOLS:
            answered = Counter(flows(network.client, vip, 80, ports, protocol).values())
            takes = {one.name, three.name} | ({two.name} if weight else set())
            assert set(answered) == takes
            assert answered.total() == 200


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keys", [{"scheduler": "source-hash"}, {"affinity": "client"}], ids=str)
def test_a_client_stays_with_its_backend(
    lab: Lab, tmp_path: Path, family: int, keys: dict[str, str]
) -> None:
    network = flat(lab)
    apply(network, tmp_path, {"web": service_of(network, protocol=BOTH, **keys)})
    serve(network, 80)
    prefix, length = ("10.9.0.", 24) if family == 4 else ("fd09::", 64)
    clients = [f"{prefix}{number}" for number in range(210, 240)]
    network.client.add_address("eth0", *(f"{client}/{length}" for client in clients))
    chosen = Counter[str]()
    for client in clients:
        answers = {
            (protocol, port): name
            for protocol in PROTOCOLS
            for port, name in flows(
                network.client, vip_of(network, family), 80, 10, protocol, source=client
            ).items()
        }
        assert len(answers) == 20
        assert len(set(answers.values())) == 1, "one backend for all ports and both protocols"
        chosen.update(set(answers.values()))
    assert set(chosen) == {backend.name for backend in network.backends}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_service_without_a_usable_backend_is_silent(
    lab: Lab, tmp_path: Path, family: int
) -> None:
    network = flat(lab)
    services = {
        "drained": service_of(
            network, ports=[81], backends=backends_of(network.backends[0], weight=0)
        ),
        "empty": service_of(network, ports=[82], backends={}),
        "web": service_of(network),
    }
    apply(network, tmp_path, services)
    serve(network, 80, 81, 82)
    vip = vip_of(network, family)
    with watching(network.client, *network.backends) as watch:
        for port in (81, 82):
            with pytest.raises(LabError, match="no answer"):
                tcp_ask(network.client, vip, port, timeout=0.1)
        assert tcp_ask(network.client, vip, 80)
    sent = {packet.dport for packet in watch.packets(network.client, outgoing=True)}
    assert sent == {80, 81, 82}
    answers = watch.packets(network.client, outgoing=False)
    assert {packet.sport for packet in answers} == {80}, "no RST for the others"
    reached = [p.dport for b in network.backends for p in watch.packets(b, outgoing=False)]
    assert set(reached) == {80}


PADDING = {"options": [PadN(optdata=bytes(4))]}


@pytest.mark.parametrize(
    "headers",
    [
        IPv6ExtHdrHopByHop(**PADDING),
        IPv6ExtHdrDestOpt(**PADDING),
        IPv6ExtHdrHopByHop(**PADDING) / IPv6ExtHdrDestOpt(**PADDING),
    ],
    ids=["hop-by-hop", "destination", "both"],
)
def test_extension_headers_hide_no_port(lab: Lab, tmp_path: Path, headers: Packet) -> None:
    network = flat(lab)
    apply(network, tmp_path, {"dns": service_of(network, protocol="udp", ports=[53])})
    serve(network, 53)
    client = network.client
    udp_ask(client, network.vip6, 53, source_port=40000)  # everyone knows everyone's MAC
    packet = ip_to(client, network.vip6) / headers / UDP(sport=40000, dport=53) / b"?"
    with udp_socket(client, 6, 40000) as opened, watching(client, *network.backends) as watch:
        send_frame(client, "eth0", bytes(Ether(src=client.mac(), dst=network.lb.mac()) / packet))
        name = opened.recv(100).split()[0].decode()
    arrived = watch.packets(network.backend(name), outgoing=False)
    assert [(p.from_mac, p.dport, p.hops) for p in arrived] == [(network.lb.mac(), 53, 63)]
    whole = Ether(watch.frames(network.backend(name), outgoing=False)[0])[IPv6]
    assert bytes(whole.payload) == bytes(packet.payload), "its headers came along"
    answers = watch.packets(client, outgoing=False)
    assert {packet.from_mac for packet in answers} == {network.backend(name).mac()}
