"""What others put into Tula's table goes alone, and connections that are open go on.

::

    client-1                lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan

By plan and apply; a running daemon's part is in test_daemon_repairs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from support.snapshots import pieces
from tula.lab import (
    Lab,
    Network,
    TcpFlow,
    ask_all,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_flows,
    wait_until,
)

pytestmark = pytest.mark.kernel

PORTS = range(32000, 32030)


@dataclass
class Served:
    network: Network
    configuration: Path
    tcp: dict[int, list[TcpFlow]]
    answers: dict[int, dict[int, str]]

    def udp(self, family: int) -> dict[int, str]:
        return flows(self.network.client, vip_of(self.network, family), 80, PORTS, "udp")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """By round robin: only the flow tables know who serves what."""
    with Lab() as lab:
        network = flat(lab, clients=1)
        for backend in network.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        web = service_of(network, protocol=["tcp", "udp"], scheduler="rr")
        configuration = write_config(tmp_path_factory.mktemp("lb") / "tula.yaml", {"web": web})
        call_tula(network.lb, "apply", "-f", configuration)
        vips = {family: vip_of(network, family) for family in FAMILIES}
        tcp = {family: tcp_flows(network.client, vip, 80, PORTS) for family, vip in vips.items()}
        made = Served(network, configuration, tcp, {})
        made.answers = {f: {**ask_all(opened)} for f, opened in tcp.items()}
        yield made


TABLE = "netdev tula"
SET = "add set {t} service_any4 {{ type ipv4_addr; elements = {{ 1.2.3.4 }}; }}"
FOREIGN = {
    "a set with the name of a map": SET,
    "a set with the name of connections": "add set {t} udp4_7 {{ type mark; "
    "flags dynamic,timeout; }}; add element {t} udp4_7 {{ 7 }}",
    "a map of no name of Tula's, used by a rule": "add map {t} mine {{ type mark : verdict; }}; "
    "add rule {t} service4.web meta mark vmap @mine",
    "an element that drops": "add element {t} service_port4_1024 "
    "{{ 10.9.0.100 . tcp . 81 : drop }}",
    "an element for all keys": "add element {t} service_port6_1024 {{ * : jump service6.web }}",
    "a hop for all marks": "add element {t} nexthop4_1024 {{ * : 10.9.0.77 }}",
    "a chain that uses a map of Tula's": "add chain {t} mine; "
    'add rule {t} mine fwd ip to meta mark map @nexthop4_1024 device "eth0"',
    "a base chain at egress": "add chain {t} mine "
    '{{ type filter hook egress device "eth0" priority 7; }}',
    "a rule that drops all": "insert rule {t} in.eth0 drop",
    "a policy": 'add chain {t} in.eth0 {{ type filter hook ingress device "eth0" priority -500; '
    "policy drop; }}",
    "a quota and a limit": "add quota {t} mine {{ 1 mbytes; }}; add limit {t} mine "
    "{{ rate 1/second; }}; add rule {t} service4.web limit name mine",
    "sleep": "add table {t} {{ flags dormant; }}",
}


@pytest.mark.parametrize("commands", FOREIGN.values(), ids=FOREIGN)
def test_it_goes_and_connections_stay(served: Served, commands: str) -> None:
    lb = served.network.lb
    udp = {family: served.udp(family) for family in FAMILIES}
    before = pieces(lb)
    lb.run(["nft", "-f", "-"], input=commands.format(t=TABLE).replace("; add", "\nadd"))
    assert pieces(lb) != before
    planned = call_tula(lb, "plan", "-f", served.configuration).stdout
    assert "no changes" not in planned
    call_tula(lb, "status")
    call_tula(lb, "apply", "-f", served.configuration)
    assert pieces(lb) == before
    for family in FAMILIES:
        assert ask_all(served.tcp[family]) == served.answers[family]
        assert served.udp(family) == udp[family]


def test_a_daemon_starts_beside_it_and_removes_it(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1)
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    call_tula(network.lb, "apply", "-f", configuration)
    before = pieces(network.lb)
    network.lb.run(["nft", SET.format(t=TABLE)])
    with Running(network.lb, configuration):
        wait_until(lambda: pieces(network.lb) == before, 20.0, "the table as it was")
