"""The daemon starts again, and a backend dies: who is remembered stays, but for the dead one's.

::

    client-1 (200 clients, as raw packets)      lb        backend-1 … 3
         │                                      │             │   (VIPs on lo)
    ═════╧══════════════════════════════════════╧═════════════╧═════  lan
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.crowd import Crowd
from support.lab_configurations import service_of, write_config
from support.persistent import moved, one
from support.running import Running
from tula.lab import Lab, flat, serve_tcp

pytestmark = pytest.mark.kernel

CLIENTS = range(200)


def test_the_clients_of_a_dead_backend_move_and_no_others(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1, backends=3)
    servers = [serve_tcp(backend, [80]) for backend in network.backends]
    # Who refuses fails at once; who is slow, on a busy machine, does not.
    health = {"type": "tcp", "interval": "500ms", "timeout": "30s", "fall": 1, "via": "direct"}
    web = service_of(network, scheduler="rr", persistence="5m", health=health)
    configuration = write_config(tmp_path / "tula.yaml", {"web": web})
    up = {"backend_1": "up", "backend_2": "up", "backend_3": "up"}
    with (
        Running(network.lb, configuration) as daemon,
        Crowd(network, network.client, network.vip4).here() as crowd,
    ):
        daemon.wait_for(**up)
        first = one(crowd.connect(CLIENTS, 5))
        daemon.stop()
        assert one(crowd.connect(CLIENTS)) == first
        daemon.start()
        daemon.wait_for(**up)
        assert one(crowd.connect(CLIENTS)) == first
        servers[1].close()
        daemon.wait_for(backend_2="down")
        then = one(crowd.connect(CLIENTS))
        assert set(moved(first, then).values()) == {"backend-2"}
        assert "backend-2" not in then.values()
        serve_tcp(network.backends[1], [80])
        daemon.wait_for(**up)
        assert one(crowd.connect(CLIENTS)) == then
