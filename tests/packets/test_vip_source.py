"""The machine's own traffic never leaves by a VIP, though the VIP lies nearer to its goal.

::

    client-1                lb  VIP 10.9.0.200, fd09::200
    10.9.0.201              10.9.0.2
    fd09::201               fd09::2
        │                   │
    ════╧═══════════════════╧═════  lan  10.9.0.0/24, fd09::/64; 192.0.2.0/24 is on it too
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.packets import watching
from tula.lab import Lab, Network, flat, serve_tcp, tcp_ask

pytestmark = pytest.mark.kernel

VIPS = ("10.9.0.200", "fd09::200")
OWN = {4: "10.9.0.2", 6: "fd09::2"}
PREFIX = {4: 24, 6: 64}
GOALS = {4: ["10.9.0.201", "192.0.2.1", "203.0.113.1"], 6: ["fd09::201", "2001:db8:7::1"]}


@pytest.fixture
def network(lab: Lab, tmp_path: Path) -> Network:
    made = flat(lab, clients=1, backends=1, vips=VIPS)
    write_config(tmp_path / "tula.yaml", {"web": service_of(made)})
    return made


def add_routes(network: Network) -> None:
    """On-link to 192.0.2.0/24, the rest over the client."""
    network.lb.add_route("192.0.2.0/24", ifname="eth0")
    for gateway in ("10.9.0.201", "fd09::201"):
        network.lb.add_route("default", gateway)


def preferred(network: Network, goal: str) -> str:
    """The source that the kernel would take, by its routes."""
    found = json.loads(network.lb.run(["ip", "-json", "route", "get", goal]).stdout)
    return str(found[0]["prefsrc"])


def bound(network: Network, goal: str) -> str:
    """The source that an unbound socket gets."""
    family = socket.AF_INET6 if ":" in goal else socket.AF_INET
    with network.lb.socket(family, socket.SOCK_DGRAM) as opened:
        opened.connect((goal, 9))
        return str(opened.getsockname()[0])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("order", ["own address first", "VIP first"])
def test_a_vip_is_never_the_source(
    network: Network, tmp_path: Path, family: int, order: str
) -> None:
    own = f"{OWN[family]}/{PREFIX[family]}"
    InProcess(network.lb).apply(tmp_path / "tula.yaml")
    if order == "VIP first":
        network.lb.remove_address("eth0", own)
        network.lb.add_address("eth0", own)
    add_routes(network)
    for goal in GOALS[family]:
        assert preferred(network, goal) == OWN[family]
        assert bound(network, goal) == OWN[family]
    serve_tcp(network.client, [7])
    with watching(network.client) as watch:
        assert tcp_ask(network.lb, GOALS[family][0], 7) == "client-1"
        came = watch.packets(network.client, outgoing=False)
    assert {packet.source for packet in came if packet.dport == 7} == {OWN[family]}


@pytest.mark.parametrize("family", [4, 6])
def test_an_ordinary_address_would_be_the_source(network: Network, family: int) -> None:
    """The test above can fail: in the VIP's place, an address without care is chosen."""
    own, vip = f"{OWN[family]}/{PREFIX[family]}", VIPS[family == 6]
    network.lb.remove_address("eth0", own)
    network.lb.add_address("eth0", f"{vip}/{32 if family == 4 else 128}")
    network.lb.add_address("eth0", own)
    add_routes(network)
    assert vip in {preferred(network, goal) for goal in GOALS[family]}


def test_how_the_kernel_holds_it(network: Network, tmp_path: Path) -> None:
    """What keeps it from being a source: scope host (IPv4), no preferred life (IPv6)."""
    call_tula(network.lb, "apply", "-f", tmp_path / "tula.yaml")
    shown = json.loads(network.lb.run(["ip", "-json", "address", "show", "dev", "eth0"]).stdout)
    vips = {a["local"]: a for a in shown[0]["addr_info"] if a["local"] in VIPS}
    assert (vips["10.9.0.200"]["scope"], vips["10.9.0.200"]["prefixlen"]) == ("host", 32)
    assert (vips["fd09::200"]["deprecated"], vips["fd09::200"]["prefixlen"]) == (True, 128)
    assert vips["fd09::200"]["nodad"] is True
