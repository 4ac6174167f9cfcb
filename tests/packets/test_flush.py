"""Somebody flushes the ruleset: the daemon puts the table back, and no connection breaks meanwhile.

::

    client-1                lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan

With TULA_SOAK=1 twenty times (``make soak``).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, address_of, vip_of
from support.running import Running
from support.snapshots import snapshot
from support.talking import Datagrams, Talking
from tula.dataplane.nft.own_stack import GUARD_TABLE, LOCAL_MARK
from tula.kernel.nftables import KernelNftables
from tula.lab import (
    Host,
    Lab,
    LabError,
    Network,
    flat,
    serve_tcp,
    serve_udp,
    tcp_ask,
    tcp_flows,
    udp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel

FLUSHES = 20 if os.environ.get("TULA_SOAK") else 3
HASHED, ROUND_ROBIN, UNUSED = 80, 81, 82
RANGE = 8000
PORTS = range(30000, 30010)


MARKING = """
table inet marking {{
  chain prerouting {{
    type filter hook prerouting priority -300;
    {match}
  }}
}}
"""


@dataclass(frozen=True)
class Scene:
    """A network, and the daemon on its balancer."""

    network: Network
    daemon: Running

    @property
    def lb(self) -> Host:
        return self.network.lb


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Lab() as lab:
        network = flat(lab, clients=1)
        for backend in network.backends:
            serve_tcp(backend, [HASHED, ROUND_ROBIN, RANGE])
            serve_udp(backend, [HASHED])
        services = {
            "hashed": service_of(
                network, protocol=["tcp", "udp"], ports=[HASHED, f"{RANGE}-{RANGE + 10}"]
            ),
            "in-turn": service_of(network, ports=[ROUND_ROBIN], scheduler="rr"),
        }
        path = write_config(tmp_path_factory.mktemp("flush") / "tula.yaml", services)
        with Running(network.lb, path, "--interval", "1h") as daemon:
            yield Scene(network, daemon)


def is_there(lb: Host) -> bool:
    with lb.enter():
        return KernelNftables().exists()


def flush(lb: Host) -> None:
    lb.run(["nft", "flush", "ruleset"])
    wait_until(lambda: is_there(lb), 60, "the table again")


@pytest.mark.timeout(60 * FLUSHES + 120)
def test_connections_that_speak_ten_times_a_second(scene: Scene) -> None:
    """By a hash they go on at their backends. With round robin, those go on whose backend the hash
    happens to choose: the flow table went with the ruleset."""
    network, client, lb = scene.network, scene.network.client, scene.lb
    opened = {
        port: [
            f
            for family in FAMILIES
            for f in tcp_flows(client, vip_of(network, family), port, PORTS)
        ]
        for port in (HASHED, ROUND_ROBIN)
    }
    with (
        Talking(opened[HASHED]) as hashed,
        Talking(opened[ROUND_ROBIN]) as in_turn,
        Datagrams(client, vip_of(network, 4), HASHED) as datagrams4,
        Datagrams(client, vip_of(network, 6), HASHED) as datagrams6,
    ):
        hashed.wait_for_answers()
        for number in range(FLUSHES):
            flush(lb)
            hashed.wait_for_answers()
            print(
                f"flush {number + 1}: {len(in_turn.broken)} of {len(in_turn.flows)} in turn broken"
            )
        in_turn.wait_for_answers()
    assert not hashed.broken
    assert len(hashed.flows) == 20
    assert (datagrams4.refused, datagrams6.refused) == (0, 0)
    assert min(datagrams4.answered, datagrams6.answered) > 0
    assert len(in_turn.broken) < len(in_turn.flows)


def refused(client: Host, address: str, port: int, protocol: str) -> bool:
    """Whether somebody answers that there is nobody; False when nobody answers at all."""
    ask = {"tcp": tcp_ask, "udp": udp_ask}[protocol]
    try:
        ask(client, address, port, timeout=0.5)
    except LabError as error:
        return "refused" in str(error)
    raise AssertionError("somebody served it")


@contextmanager
def past_the_table(scene: Scene) -> Iterator[None]:
    """The table is away, and the daemon holds still."""
    os.kill(scene.daemon.pid, signal.SIGSTOP)
    try:
        scene.lb.run(["nft", "flush", "ruleset"])
        yield
    finally:
        os.kill(scene.daemon.pid, signal.SIGCONT)
        wait_until(lambda: is_there(scene.lb), 60, "the table again")


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_a_services_is_kept_from_the_own_stack(scene: Scene, family: int) -> None:
    client, lb, vip = scene.network.client, scene.lb, vip_of(scene.network, family)
    own = address_of(lb, family)
    with past_the_table(scene):
        for protocol, port in (("tcp", HASHED), ("udp", HASHED), ("tcp", RANGE + 5)):
            assert not refused(client, vip, port, protocol), (protocol, port)
            assert refused(client, own, port, protocol), (protocol, port)
            assert refused(lb, vip, port, protocol), "what comes by lo"
        assert refused(client, vip, UNUSED, "tcp")
        assert refused(client, vip, ROUND_ROBIN, "udp"), "the service is of TCP"
        match = f"{'ip' if family == 4 else 'ip6'} daddr {vip} meta mark set {LOCAL_MARK:#x}"
        lb.run(["nft", "-f", "-"], input=MARKING.format(match=match))
        assert refused(client, vip, HASHED, "tcp"), "meant for this machine"


def test_an_interface_that_is_not_listed(scene: Scene) -> None:
    """Who has a socket for it is served there as before; nobody is refused."""
    network, client, lb, vip = scene.network, scene.network.client, scene.lb, scene.network.vip4
    aside = network.lab.switch("aside")
    network.lab.connect(lb, aside, "10.8.0.2/24", ifname="eth1")
    network.lab.connect(client, aside, "10.8.0.9/24", ifname="eth1")
    client.run(["ip", "route", "add", f"{vip}/32", "via", "10.8.0.2", "dev", "eth1"])
    assert not refused(client, vip, HASHED, "tcp")
    assert refused(client, vip, UNUSED, "tcp")
    serve_tcp(lb, [HASHED], [vip])
    assert tcp_ask(client, vip, HASHED) == "lb"


def test_the_table_is_the_daemons_and_goes_with_it(scene: Scene) -> None:
    """So a saved ruleset with it loads only while no daemon runs. One with Tula's other table nft
    1.0.6 never loads: its keys have no types. The docs and the doctor say so."""
    lb = scene.lb
    guard = lb.run(["nft", "list", "table", "inet", GUARD_TABLE]).stdout
    before = snapshot(lb)
    for text in (guard, f"flush ruleset\n{guard}", f"delete table inet {GUARD_TABLE}"):
        done = lb.run(["nft", "-f", "-"], input=text, check=False)
        assert done.returncode == 1
        assert "Operation not permitted" in done.stderr
    saved = lb.run(["nft", "list", "table", "netdev", "tula"]).stdout
    done = lb.run(["nft", "-f", "-"], input=f"flush ruleset\n{saved}", check=False)
    assert "datatype mismatch" in done.stderr
    assert snapshot(lb) == before
    scene.daemon.stop()
    wait_until(lambda: GUARD_TABLE not in lb.run(["nft", "list", "tables"]).stdout, 60)
    lb.run(["nft", "-f", "-"], input=f"flush ruleset\n{guard}")
    assert GUARD_TABLE not in lb.run(["nft", "list", "tables"]).stdout
