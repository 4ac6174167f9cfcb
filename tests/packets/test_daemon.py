"""The daemon: it keeps the kernel true to the configuration and to the health of the backends.

::

    client-1, -2            lb               backend-1 … 4
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import Lab, Network, flat, flows, serve_tcp

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "interval": "250ms", "timeout": "600ms", "rise": 2, "fall": 2}


@pytest.fixture
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, backends=3)
        for backend in made.backends:
            serve_tcp(backend, [80])
        yield made


def configuration(network: Network, path: Path, **keys: object) -> Path:
    web = service_of(network, **{"health": QUICK, **keys})
    return write_config(path / "tula.yaml", {"web": web})


_ports = iter(range(20000, 60000, 60))


def answering(network: Network, family: int) -> set[str]:
    """Who answers new flows: from ports that no flow had before, which the table may still hold."""
    first = next(_ports)
    found = flows(network.client, vip_of(network, family), 80, range(first, first + 60), "tcp")
    return set(found.values())


def test_a_backend_that_stops_serving_is_left_and_comes_back(
    network: Network, tmp_path: Path
) -> None:
    with Running(network.lb, configuration(network, tmp_path)) as daemon:
        daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
        for family in FAMILIES:
            assert answering(network, family) == {"backend-1", "backend-2", "backend-3"}
        network.backends[1].remove_address("lo", "10.9.0.100/32")
        daemon.wait_for(backend_1="up", backend_2="down", backend_3="up")
        daemon.wait_for_reason("web/backend-2", "serves, but does not accept the VIP")
        for family in FAMILIES:
            assert answering(network, family) == {"backend-1", "backend-3"}
        network.backends[1].add_address("lo", "10.9.0.100/32")
        daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
        assert answering(network, 4) == {"backend-1", "backend-2", "backend-3"}
        print(daemon.log)


def test_the_first_probes_of_backends_that_nobody_asked_before_pass(
    network: Network, tmp_path: Path
) -> None:
    network.lb.run(["ip", "neigh", "flush", "all"])
    path = configuration(network, tmp_path, health={**QUICK, "rise": 1, "fall": 1})
    with Running(network.lb, path) as daemon:
        daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
        assert "backend-down" not in {event["kind"] for event in daemon.events()}
