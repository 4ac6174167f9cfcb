"""Who may connect: lists of prefixes and limits, seen by clients.

::

    client-1, client-2     lb  VIP 10.9.0.100, fd09::100     backend-1, -2
    10.9.0.201, .202        │                                 │   (VIPs on lo)
        ════════════════════╧═════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.crafted import Crafted
from support.icmp_errors import ERRORS, error, inside, reached
from support.in_process import InProcess
from support.joined import Joined
from support.lab_configurations import service_of, write_config
from support.packets import ASK, FAMILIES, PROTOCOLS, address_of, vip_of, watching
from tula.lab import (
    Host,
    Lab,
    LabError,
    Network,
    TcpFlow,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_flow,
    wait_until,
)

pytestmark = pytest.mark.kernel

BOTH = ("client-1", "client-2")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, clients=2, backends=2)
        for backend in made.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        yield made


@pytest.fixture
def tula(network: Network) -> InProcess:
    return InProcess(network.lb)


def configure(network: Network, tula: InProcess, directory: Path, **keys: Any) -> None:
    """The service web, on TCP and UDP port 80."""
    service = service_of(network, **{"protocol": ["tcp", "udp"], **keys})
    tula.apply(write_config(directory / "tula.yaml", {"web": service}))


def counted(tula: InProcess, what: str) -> int:
    return int(tula.status()["web"][what])


def reaches(client: Host, vip: str, protocol: str, *, expected: bool) -> bool:
    """Whether somebody answers, and soon, where no answer is expected."""
    try:
        ASK[protocol](client, vip, 80, timeout=10 if expected else 0.2)
    except LabError:
        return False
    return True


CASES: dict[str, tuple[dict[str, Any], dict[int, tuple[str, ...]]]] = {
    "denied": (
        {"deny": ["10.9.0.201", "fd09::201"]},
        {4: ("client-2",), 6: ("client-2",)},
    ),
    "allowed": (
        {"allow": ["10.9.0.201/32", "fd09::201"]},
        {4: ("client-1",), 6: ("client-1",)},
    ),
    "denied within what is allowed": (
        {
            "allow": ["10.0.0.0/8", "10.9.0.0/24", "fd09::/64", "fd09::/16"],
            "deny": ["10.9.0.201", "10.9.0.200/31", "10.9.0.201", "fd09::201"],
        },
        {4: ("client-2",), 6: ("client-2",)},
    ),
    "allowed of one family": ({"allow": "0.0.0.0/0"}, {4: BOTH, 6: ()}),
    "denied of one family": ({"deny": "::/0"}, {4: BOTH, 6: ()}),
}


@pytest.mark.parametrize("case", CASES)
def test_only_who_is_admitted_reaches_a_backend(
    network: Network, tula: InProcess, tmp_path: Path, case: str
) -> None:
    keys, passing = CASES[case]
    configure(network, tula, tmp_path, **keys)
    before, refused = counted(tula, "denied"), 0
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            for client in network.clients:
                expected = client.name in passing[family]
                found = reaches(client, vip_of(network, family), protocol, expected=expected)
                assert found is expected, (family, protocol, client)
                refused += not expected
    assert counted(tula, "denied") >= before + refused
    assert not tula.plan(tmp_path / "tula.yaml"), "a second apply changes nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_list_that_changes_cuts_who_is_denied_and_nobody_else(
    network: Network, tula: InProcess, tmp_path: Path, family: int
) -> None:
    vip, first = vip_of(network, family), {4: "10.9.0.201", 6: "fd09::201"}[family]
    configure(network, tula, tmp_path, deny=["192.0.2.0/24", "2001:db8::/32"])
    mine, others = (tcp_flow(client, vip, 80) for client in network.clients)
    for _ in range(3):  # hot by now
        assert mine.ask(10) == mine.backend
        assert others.ask(10) == others.backend
    configure(network, tula, tmp_path, deny=["192.0.2.0/24", "2001:db8::/32", first])
    with pytest.raises(LabError):
        mine.ask(timeout=0.5)
    assert others.ask(timeout=10) == others.backend
    configure(network, tula, tmp_path)  # its packets are sent again, and arrive
    wait_until(lambda: answered(mine), what="an answer over the connection that was cut")


def answered(flow: TcpFlow) -> bool:
    try:
        return bool(flow.ask(timeout=2))
    except LabError:
        return False


@pytest.mark.parametrize("limits", [{"new_per_second": 5}, {"per_client": 5}])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_new_flows_are_limited_and_open_ones_are_not(
    network: Network, tula: InProcess, tmp_path: Path, protocol: str, limits: dict[str, int]
) -> None:
    configure(network, tula, tmp_path, limits=limits)
    open_flows = [tcp_flow(client, network.vip4, 80) for client in network.clients]
    for family in FAMILIES:
        vip, before = vip_of(network, family), counted(tula, "limited")
        made = flows(
            *(network.client, vip, 80, range(21000, 21060), protocol),
            timeout=0.3,
            allow_loss=True,
        )
        # The kernel's bucket: five at once, and five a second for as long as the machine took.
        assert len(made) < 60
        assert counted(tula, "limited") > before
        if "per_client" in limits:
            assert reaches(network.clients[1], vip, protocol, expected=True)
        wait_until(lambda vip=vip: reaches(network.client, vip, protocol, expected=False))
    for flow in open_flows:
        assert all(flow.ask(timeout=10) == flow.backend for _ in range(10))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("announce", [True, False])
def test_refused_with_reset_is_told(
    network: Network, tula: InProcess, tmp_path: Path, family: int, protocol: str, announce: bool
) -> None:
    vip = vip_of(network, family)
    if not announce:  # the VIP is no address of the balancer's
        routed = {4: f"{vip}/32", 6: f"{vip}/128"}[family]
        gateway = {4: "10.9.0.2", 6: "fd09::2"}[family]
        network.client.run(["ip", "route", "replace", routed, "via", gateway])
    denied = ["10.9.0.201", "fd09::201"]
    configure(network, tula, tmp_path, deny=denied, refuse="reset", announce=announce)
    with pytest.raises(LabError, match="refused"):
        ASK[protocol](network.client, vip, 80, timeout=10)
    listed = network.lb.run(["nft", "list", "tables"]).stdout
    assert "tula_refuse" in listed
    if not announce:
        network.client.run(["ip", "route", "del", routed])
    configure(network, tula, tmp_path, deny=denied)
    assert "tula_refuse" not in network.lb.run(["nft", "list", "tables"]).stdout
    assert not reaches(network.client, vip, protocol, expected=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_leaks_of_a_client_that_is_denied(
    network: Network, tula: InProcess, tmp_path: Path, family: int
) -> None:
    """Neither fragments, nor ICMP errors about flows that it never had."""
    crafted = Crafted(network)
    configure(network, tula, tmp_path, deny=["10.9.0.201", "fd09::201"])
    before = counted(tula, "denied")
    errors = [
        error(crafted, family, kind, inside(crafted, family, "udp", 80, 33000))
        for kind in ERRORS[family]
    ]
    whole = crafted.udp(family, 33001, 80, b"x" * 200)
    with watching(*network.backends) as watch:
        crafted.send(*errors, *crafted.pieces(family, whole, 7, [64]))
        wait_until(lambda: counted(tula, "denied") >= before + len(errors) + 1)
        for backend in network.backends:
            frames = watch.frames(backend, outgoing=False)
            assert not reached(frames, family)
            assert not watch.packets(backend, outgoing=False)


def test_the_same_through_a_tunnel(lab: Lab, tmp_path: Path) -> None:
    joined = Joined(lab, tmp_path, "vxlan", 4, backends=1)
    denied = [address_of(joined.client, family) for family in FAMILIES]
    joined.services["web"] |= {"deny": denied, "refuse": "reset"}
    joined.join()
    serve_tcp(joined.backends[0], [80])
    serve_udp(joined.backends[0], [80])
    for vip in joined.network.vips:
        for protocol in PROTOCOLS:
            with pytest.raises(LabError, match="refused"):
                ASK[protocol](joined.client, vip, 80, timeout=10)
    joined.services["web"]["deny"] = ["192.0.2.0/24"]
    joined.balancer.apply(joined.configuration())
    for vip in joined.network.vips:
        for protocol in PROTOCOLS:
            assert ASK[protocol](joined.client, vip, 80, timeout=10) == "backend-1"


def test_a_thousand_prefixes_change_by_one(
    network: Network, tula: InProcess, tmp_path: Path
) -> None:
    """A hundred thousand in soak."""
    number = 100_000 if os.environ.get("TULA_SOAK") else 1000
    many = [f"{20 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24" for n in range(number)]
    configure(network, tula, tmp_path, deny=many)
    assert reaches(network.client, network.vip4, "tcp", expected=True)
    service = service_of(network, protocol=["tcp", "udp"], deny=[*many[1:], "10.9.0.201"])
    changed = write_config(tmp_path / "changed.yaml", {"web": service})
    steps = [(step.name, step.detail) for step in tula.plan(changed).steps()]
    assert steps == [("deny4_1", "elements: 1 changed")]
    tula.apply(changed)
    assert not reaches(network.client, network.vip4, "tcp", expected=False)
    assert reaches(network.clients[1], network.vip4, "tcp", expected=True)
    assert not tula.plan(changed)
    configure(network, tula, tmp_path)  # for the tests that follow
