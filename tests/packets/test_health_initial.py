"""With ``initial: down`` a new backend gets nothing before its checks pass; what serves goes on.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1 … 3
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from support.snapshots import snapshot
from tula.lab import Lab, Network, flat, flows, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
DOWN: dict[str, Any] = {**QUICK, "initial": "down"}


def put(network: Network, directory: Path, number: int, **health: Any) -> Path:
    """The first so many backends; the name of the first may be another."""
    backends = backends_of(*network.backends[:number])
    if "name" in health:
        backends = {health.pop("name"): backends["backend-1"], **backends}
        del backends["backend-1"]
    web = service_of(network, protocol=["tcp", "udp"], backends=backends, health={**DOWN, **health})
    return write_config(directory / "tula.yaml", {"web": web})


def answering(network: Network, ports: Iterator[int]) -> set[str]:
    """Who answers new flows, by IPv4 and IPv6, TCP and UDP: the same every time."""
    first = next(ports)
    some = range(first, first + 40)
    found = [
        frozenset(flows(network.client, vip_of(network, family), 80, some, protocol).values())
        for family in FAMILIES
        for protocol in ("tcp", "udp")
    ]
    assert len(set(found)) == 1, found
    return set(found[0])


def test_a_new_backend_waits_and_what_serves_goes_on(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1, backends=3)
    lb, (first, second, third) = network.lb, network.backends
    for backend in (first, second):
        serve_tcp(backend, [80])
        serve_udp(backend, [80])
    serve_udp(third, [80])  # its checks fail, and it would answer
    configuration = put(network, tmp_path, 2)
    ports = count(20000, 40)

    before = snapshot(lb)
    for command in ("apply", "plan"):
        refused = call_tula(lb, command, "-f", configuration, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith(f"{configuration}:")
        assert "initial: down, and nothing checks without the daemon" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert snapshot(lb) == before

    with Running(lb, configuration) as daemon:
        assert not [e for e in daemon.events() if e["kind"] == "panic-started"]
        daemon.wait_for(backend_1="up", backend_2="up")
        assert answering(network, ports) == {"backend-1", "backend-2"}

        call_tula(lb, "apply", "-f", put(network, tmp_path, 3))
        found = daemon.wait_for(backend_3="down")["web/backend-3"]
        assert found["effective_weight"] == 0
        assert answering(network, ports) == {"backend-1", "backend-2"}

        # A new daemon finds who serves in the kernel: it waits no more, the other one still.
        last = daemon.events()[-1]["number"]
        daemon.kill()
        daemon.start()
        states = daemon.states()
        assert states.pop("web/backend-3") == "down"
        assert set(states.values()) <= {"unknown", "up"}
        assert answering(network, ports) == {"backend-1", "backend-2"}
        daemon.wait_for(backend_1="up", backend_2="up", backend_3="down")
        fallen = [
            event["subject"]
            for event in daemon.events()
            if event["number"] > last and event["kind"] == "backend-down"
        ]
        assert fallen == [], "nobody went down, not even for a moment"

        serve_tcp(third, [80])
        daemon.wait_for(backend_3="up")
        assert answering(network, ports) == {"backend-1", "backend-2", "backend-3"}
        assert daemon.backends()["web/backend-3"]["packets"] > 0

        # Another name and other checks make no server new.
        last = daemon.events()[-1]["number"]
        call_tula(lb, "apply", "-f", put(network, tmp_path, 3, name="cache-a", interval="300ms"))
        assert daemon.states()["web/cache-a"] in ("unknown", "up")
        assert answering(network, ports) == {"backend-1", "backend-2", "backend-3"}
        daemon.wait_for(cache_a="up", backend_2="up", backend_3="up")
        kinds = {event["kind"] for event in daemon.events() if event["number"] > last}
        assert "backend-down" not in kinds

    # Without a daemon the operator's word is heard, and brings nobody in that has not passed.
    assert call_tula(lb, "drain", "web/backend-2").returncode == 0
    assert answering(network, ports) == {"backend-1", "backend-3"}
    call_tula(lb, "undrain", "web/backend-2")
    assert answering(network, ports) == {"backend-1", "backend-2", "backend-3"}
