"""A full table: who is in it stays, who comes is served by hash, and it is counted.

::

    client-1 (60 flows)   client-2 (20,000 sources)      lb        backend-1 … 4
         │                      │                        │             │   (VIPs on lo)
    ═════╧══════════════════════╧════════════════════════╧═════════════╧═════  lan
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.flood import flood
from support.lab_configurations import backends_of
from support.packets import FAMILIES, PROTOCOLS, vip_of
from support.serving import Held, Serving

pytestmark = pytest.mark.kernel

SIZE, SOURCES = 1024, 100_000 if os.environ.get("TULA_SOAK") else 20_000


@pytest.fixture
def small(serving: Serving) -> Serving:
    serving.configuration["connections"] = {"size": SIZE}
    serving.apply()
    return serving


@contextmanager
def flooded(serving: Serving, family: int, protocol: str) -> Iterator[threading.Thread]:
    """The flood under way; over when the block is left."""
    network = serving.network
    arguments = (network.clients[1], network.lb, vip_of(network, family), 80, protocol, SOURCES)
    thread = threading.Thread(target=flood, args=arguments)
    thread.start()
    yield thread
    thread.join()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_flood_of_new_sources(small: Serving, family: int, protocol: str) -> None:
    held = Held(small)
    rounds = 0
    with flooded(small, family, protocol) as thread:
        while thread.is_alive():
            assert held.answers() == held.backends, "broken 0"
            rounds += 1
    # Full and under change: flows that are in the table still stay.
    small.web["backends"]["backend-1"]["weight"] = 1
    small.web["backends"] |= backends_of(small.network.backends[3])
    small.apply()
    moved = [flow for flow, name in held.backends.items() if small.by_hash(*flow) != name]
    assert len(moved) > 60, "by hash they would have moved"
    assert held.answers() == held.backends
    # Who comes now finds no room, and is served by hash.
    if protocol == "tcp":
        flows = small.connect(family, range(31000, 31100))
        fresh = {flow.source_port: flow.ask() for flow in flows}
    else:
        fresh = small.udp(family, range(31000, 31100))
        assert small.udp(family, range(31000, 31100)) == fresh
    assert fresh == {port: small.by_hash(family, protocol, port) for port in fresh}
    status = small.status()
    full, use = status["counters"]["table_full"], status["connections"][f"{protocol}{family}"]
    print(f"IPv{family} {protocol}: {rounds} rounds, {json.dumps(full)}, {json.dumps(use)}")
    assert SOURCES - SIZE <= full["packets"] <= SOURCES + 400
    assert use == {"entries": SIZE, "size": SIZE}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheduler", ["rr", "random"])
def test_what_takes_turns_goes_by_hash_when_there_is_no_room(
    small: Serving, scheduler: str, family: int, protocol: str
) -> None:
    """Without an entry a second turn would lead elsewhere than the first."""
    small.web["scheduler"] = scheduler
    small.apply()
    network = small.network
    flood(network.clients[1], network.lb, vip_of(network, family), 80, protocol, 2 * SIZE)
    before = small.status()["counters"]["table_full"]["packets"]
    ports = range(32000, 32060)
    if protocol == "tcp":
        first = {flow.source_port: flow.ask() for flow in small.connect(family, ports)}
    else:
        first = small.udp(family, ports)
        assert small.udp(family, ports) == first
    small.web["scheduler"] = "maglev"
    small.apply()
    assert first == {port: small.by_hash(family, protocol, port) for port in ports}
    packets = small.status()["counters"]["table_full"]["packets"] - before
    assert packets == (60 if protocol == "tcp" else 120), "each packet that found no room, once"
