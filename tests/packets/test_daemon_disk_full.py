"""The disk is full: forwarding and health go on, and status says what is wrong.

::

    client-1            lb  (its state on 64 kB)             backend-1 … 3
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.own_mounts import after_mounts
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import Lab, Network, flat, flows, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
SMALL = 'mount -t tmpfs -o size=64k,mode=755 tmpfs "$TULA_STATE_DIR"'


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=3)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


@pytest.fixture
def daemon(network: Network, tmp_path: Path) -> Iterator[Running]:
    """It runs, with mounts of its own."""
    configuration = put(network, tmp_path, 100)
    with Running(network.lb, configuration, before=after_mounts(SMALL)) as made:
        made.wait_for(backend_1="up", backend_2="up", backend_3="up")
        yield made


def put(network: Network, directory: Path, weight: int) -> Path:
    """The configuration, known by its weight of backend-3."""
    first, second, third = network.backends
    backends = {**backends_of(first, second), **backends_of(third, weight=weight)}
    web = service_of(network, health=QUICK, backends=backends)
    return write_config(directory / "tula.yaml", {"web": web})


def fill(daemon: Running) -> Path:
    """Leaves no room in the state directory; what fills it."""
    filling = daemon.state / "filling"
    with filling.open("wb", buffering=0) as handle, suppress(OSError):
        while handle.write(bytes(1024)):
            pass
    return filling


def answering(network: Network, family: int) -> set[str]:
    return set(flows(network.client, vip_of(network, family), 80, 60, "tcp").values())


def test_forwarding_and_health_go_on(network: Network, daemon: Running, tmp_path: Path) -> None:
    lb, lost = network.lb, network.backends[1]
    for family in FAMILIES:
        assert len(answering(network, family)) == 3
    counted = daemon.status()["services"][0]["packets"]
    filling = fill(daemon)

    lost.remove_address("lo", "10.9.0.100/32")
    daemon.wait_for(backend_1="up", backend_2="down", backend_3="up")
    for family in FAMILIES:
        assert answering(network, family) == {"backend-1", "backend-3"}
    daemon.wait_for_problem("not remembered on disk: ")
    assert "memory.json: No space left on device" in daemon.problems
    assert daemon.status()["services"][0]["packets"] > counted, "what it counted is not lost"

    drained = call_tula(lb, "drain", "web/backend-1", check=False)
    assert (drained.returncode, drained.stdout) == (1, "")
    assert drained.stderr.startswith("tula: ")
    assert drained.stderr.endswith("overrides.json: No space left on device\n")
    assert daemon.states()["web/backend-1"] == "up"

    put(network, tmp_path, 70)
    os.kill(daemon.pid, signal.SIGHUP)
    daemon.wait_for_problem(f"{tmp_path}/tula.yaml is not taken yet: ")
    applied = call_tula(lb, "apply", check=False)
    assert (applied.returncode, applied.stdout) == (1, "")
    assert applied.stderr.endswith("No space left on device\n")
    assert daemon.backends()["web/backend-3"]["weight"] == 100
    shown = call_tula(lb, "status").stderr.splitlines()
    assert [line.split(":")[0] for line in shown] == ["WARNING"] * 2
    assert "configuration-accepted" not in daemon.log.split("configuration change deferred")[1]

    # It tries again and again, and that holds nothing else up.
    lost.add_address("lo", "10.9.0.100/32")
    daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    assert answering(network, 4) == {"backend-1", "backend-2", "backend-3"}
    assert daemon.backends()["web/backend-3"]["weight"] == 100

    filling.unlink()
    daemon.wait_for_weight("web/backend-3", 70, within=40)  # by itself
    wait_until(lambda: daemon.problems == "", 60, "no problems")
    call_tula(lb, "drain", "web/backend-1")
    daemon.wait_for(backend_1="draining")
    assert daemon.status()["services"][0]["packets"] > counted


def test_a_start_that_finds_no_room_says_why(network: Network, tmp_path: Path) -> None:
    """And runs as soon as there is room."""
    script = f'{SMALL}; cp /dev/zero "$TULA_STATE_DIR/filling" 2>/dev/null || true'
    configuration = put(network, tmp_path, 100)
    daemon = Running(network.lb, configuration, before=after_mounts(script))
    daemon.spawn()
    wait_until(lambda: "No space left" in daemon.log, 60)
    asked = call_tula(network.lb, "status", check=False)
    assert asked.returncode == 1
    assert "the daemon has no configuration yet: " in asked.stderr
    assert "No space left on device" in asked.stderr
    (daemon.state / "filling").unlink()
    daemon.wait_until_it_answers(40)
    daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    daemon.stop()
