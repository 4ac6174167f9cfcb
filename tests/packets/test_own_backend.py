"""The balancer as a backend of its own service: by its address, as one of several, and as ``self``.

::

    client-1                lb              backend-1, -2
        │                   │ "lb"               │   (VIPs on lo)
    ════╧═══════════════════╧════════════════════╧═════  lan
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import (
    Lab,
    Network,
    ask_all,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_flows,
    wait_until,
)

pytestmark = pytest.mark.kernel

ALL = {"lb", "backend-1", "backend-2"}
SIZES = (100, 1473, 9000)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, clients=1, backends=2)
        made.announce()
        for host in (made.lb, *made.backends):
            serve_tcp(host, [80])
            serve_udp(host, [80])
        yield made


def services(network: Network, weight: int = 100, **keys: Any) -> dict[str, Any]:
    own = {"address": ["10.9.0.2", "fd09::2"], "weight": weight}
    backends = {"lb": own, **backends_of(*network.backends)}
    return {"web": service_of(network, protocol=["tcp", "udp"], backends=backends, **keys)}


@pytest.mark.parametrize("connections", [True, False])
def test_it_serves_beside_the_others(network: Network, tmp_path: Path, connections: bool) -> None:
    path = tmp_path / "tula.yaml"
    lb = InProcess(network.lb)
    top = {"connections": {"enabled": connections}}
    lb.apply(write_config(path, services(network), **top))
    for family in FAMILIES:
        for protocol in ("tcp", "udp"):
            answers = flows(network.client, vip_of(network, family), 80, 100, protocol)
            assert set(answers.values()) == ALL
    counted = {b["name"]: b["packets"] for b in lb.status()["web"]["backends"]}
    assert counted.keys() == ALL
    assert all(counted.values()), counted
    assert not lb.apply(path), "nothing to change"


def test_connections_to_it_stay_when_it_drains(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "tula.yaml"
    lb = InProcess(network.lb)
    lb.apply(write_config(path, services(network)))
    for family in FAMILIES:
        vip = vip_of(network, family)
        opened = tcp_flows(network.client, vip, 80, range(40000, 40060))
        before = ask_all(opened)
        assert set(before.values()) == ALL
        lb.apply(write_config(path, services(network, weight=0)))
        assert ask_all(opened) == before
        new = flows(network.client, vip, 80, 60, "tcp")
        assert set(new.values()) == ALL - {"lb"}
        lb.apply(write_config(path, services(network)))
        assert ask_all(opened) == before
        for flow in opened:
            flow.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_every_size_reach_it(network: Network, tmp_path: Path, family: int) -> None:
    lb = InProcess(network.lb)
    lb.apply(write_config(tmp_path / "tula.yaml", services(network)))
    asked = socket.AF_INET6 if family == 6 else socket.AF_INET
    used = set()
    for number in range(12):
        with network.client.socket(asked, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.bind(("", 31000 + number))
            asking.connect((vip_of(network, family), 80))
            found = set()
            for size in SIZES:
                payload = random.Random(size).randbytes(size)
                asking.send(payload)
                name, _, back = asking.recv(65535).partition(b" ")
                assert back == payload
                found.add(name.decode())
            assert len(found) == 1
            used |= found
    assert used == ALL


def test_self_alone(network: Network, tmp_path: Path) -> None:
    lb = InProcess(network.lb)
    itself = {"sorry": {"address": "self"}}
    path = write_config(
        tmp_path / "tula.yaml",
        services(network) | {"web": service_of(network, protocol=["tcp", "udp"], backends=itself)},
    )
    lb.apply(path)
    for family in FAMILIES:
        for protocol in ("tcp", "udp"):
            answers = flows(network.client, vip_of(network, family), 80, 20, protocol)
            assert set(answers.values()) == {"lb"}
    (backend,) = lb.status()["web"]["backends"]
    assert backend["address"] == "self"
    assert backend["packets"]


def test_self_as_the_last_resort(network: Network, tmp_path: Path) -> None:
    """With the daemon's guard on; every backend dies, and they come back."""
    check = {"type": "tcp", "interval": "200ms", "timeout": "500ms", "rise": 1, "fall": 2}
    backends = {**backends_of(*network.backends), "sorry": {"address": "self", "backup": True}}
    web = service_of(network, backends=backends, health=check)
    path = write_config(tmp_path / "tula.yaml", {"web": web})
    InProcess(network.lb).clear()  # the daemon goes on with what was accepted
    with Running(network.lb, path) as daemon:
        daemon.wait_for(backend_1="up", backend_2="up", sorry="up")

        def served(*names: str) -> bool:
            found = (
                flows(network.client, vip_of(network, family), 80, 20, timeout=1.0, allow_loss=True)
                for family in FAMILIES
            )
            return all(set(answers.values()) == set(names) for answers in found)

        assert served("backend-1", "backend-2")
        for backend in network.backends:
            backend.set_cable("eth0", False)
        wait_until(lambda: served("lb"), 60, "the balancer itself serves")
        for backend in network.backends:
            backend.set_cable("eth0", True)
        wait_until(lambda: served("backend-1", "backend-2"), 60, "the others serve again")
