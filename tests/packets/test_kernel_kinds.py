"""Debian's stock kernel has the kinds of interfaces that L3 forwarding needs, as pyroute2 asks.

::

    client-1                      backend-1
        │  INNER in a tunnel in OUTER │
    ════╧═════════════════════════════╧═══  lan
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.fou import FouPort, add_fou_port, list_fou_ports
from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from tula.lab import Host, Lab, Network, flat, flows, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

SOAK = os.environ.get("TULA_SOAK")
"""Else test_tunnels.py sends packets through each kind in the VM."""
GUE, FOU = 2, 1
INNER = {4: ("192.0.2.1/24", "192.0.2.2/24"), 6: ("2001:db8:2::1/64", "2001:db8:2::2/64")}


class Kind(NamedTuple):
    """A kind of interface, the outer packets' family, and which inner ones it carries."""

    name: str
    outer: int
    inner: tuple[int, ...]
    keys: dict[str, Any]


KINDS = {
    "ipip": Kind("ipip", 4, (4,), {"ipip_ttl": 64}),
    "sit-any": Kind("sit", 4, (4, 6), {"sit_ttl": 64, "sit_proto": 0}),
    "gre": Kind("gre", 4, (4, 6), {"gre_ttl": 64}),
    # flags 1: IP6_TNL_F_IGN_ENCAP_LIMIT, as `encaplimit none`
    "ip6tnl-any": Kind(
        "ip6tnl", 6, (4, 6), {"ip6tnl_ttl": 64, "ip6tnl_proto": 0, "ip6tnl_flags": 1}
    ),
    "ip6gre": Kind("ip6gre", 6, (4, 6), {"ip6gre_ttl": 64, "ip6gre_flags": 1}),
    "vxlan": Kind("vxlan", 4, (4, 6), {"vxlan_id": 5, "vxlan_port": 4789}),
}


def link_to(here: Host, there: Host, kind: Kind, **keys: Any) -> None:
    """The interface t0 from one host to another, up, with addresses of its own network."""
    local, remote = (_address(host, kind.outer) for host in (here, there))
    toward = "group" if kind.name == "vxlan" else "remote"
    ends = {f"{kind.name}_local": local, f"{kind.name}_{toward}": remote}
    with here.netlink() as netlink:
        netlink.link("add", ifname="t0", kind=kind.name, **ends, **kind.keys, **keys)
    here.set_link("t0", True)


def _address(host: Host, family: int) -> str:
    return next(text for text in host.addresses("eth0") if (":" in text) == (family == 6))


def asked_through(network: Network, kind: Kind, **keys: Any) -> None:
    """Requests over TCP and UDP cross the tunnel, in both families that it carries."""
    client, backend = network.client, network.backends[0]
    link_to(client, backend, kind, **keys)
    link_to(backend, client, kind, **keys)
    for family in kind.inner:
        mine, theirs = INNER[family]
        client.add_address("t0", mine)
        backend.add_address("t0", theirs)
        inner = theirs.partition("/")[0]
        serve_tcp(backend, [80], [inner])
        serve_udp(backend, [80], [inner])
        for protocol in ("tcp", "udp"):
            before = backend.counters("t0").rx_packets
            assert set(flows(client, inner, 80, 3, protocol).values()) == {backend.name}
            assert backend.counters("t0").rx_packets >= before + 3


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.link_kinds(KINDS[name].name))
        for name in KINDS
        if SOAK or name == "vxlan"
    ],
)
def test_a_tunnel_carries_requests(lab: Lab, name: str) -> None:
    asked_through(flat(lab, backends=1), KINDS[name])


@pytest.mark.link_kinds("fou")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_receives_gue_and_another_fou(lab: Lab, family: int) -> None:
    host = lab.host("backend")
    with host.enter():
        add_fou_port(5555, family)
        add_fou_port(5556, family, socket.IPPROTO_IPIP)
        found = list_fou_ports()
    assert set(found) == {FouPort(5555, family, 0), FouPort(5556, family, socket.IPPROTO_IPIP)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.link_kinds("fou", KINDS[name].name))
        for name in ("sit-any", *(("ipip", "gre") if SOAK else ()))
    ],
)
def test_gue_carries_requests(lab: Lab, name: str) -> None:
    network, kind = flat(lab, backends=1), KINDS[name]
    for host in (network.client, network.backends[0]):
        with host.enter():
            add_fou_port(5555)
    encap = {"encap_type": GUE, "encap_sport": 0, "encap_dport": 5555}
    asked_through(network, kind, **{f"{kind.name}_{key}": value for key, value in encap.items()})


def test_a_document_is_applied_and_its_backends_answer(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    for backend in network.backends:
        serve_tcp(backend, [80])
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    InProcess(network.lb).apply(configuration)
    for vip in (network.vip4, network.vip6):
        answers = flows(network.client, vip, 80, 30, "tcp")
        assert set(answers.values()) == {backend.name for backend in network.backends}
