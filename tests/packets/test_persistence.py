"""Client persistence: all connections of a client go to one backend, for as long as it is known.

::

    client-1 (hundreds of clients, as raw packets)      lb        backend-1 … 4
         │                                              │             │   (VIPs on lo)
    ═════╧══════════════════════════════════════════════╧═════════════╧═════  lan

Who moved is said exactly, after each change. ``Crowd.connect`` itself asserts that all packets of a
flow go to one backend.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from support.crowd import ACK, FIN, SYN, Crowd, Packet
from support.in_process import call_tula
from support.packets import FAMILIES, vip_of
from support.persistent import Persistent, hashed, moved, one
from tula.lab import Network, wait_until

pytestmark = pytest.mark.kernel

MANY = bool(os.environ.get("TULA_SOAK"))
COUNT = 2000 if MANY else 200
CLIENTS, STRANGERS, OTHERS = (range(first, first + COUNT) for first in (0, 10_000, 20_000))
SCHEDULERS = ("maglev", "source-hash", "rr", "wrr", "random", "least-connections")
PREFIXES = {4: (32, 24, 19), 6: (128, 64, 61)}
CASES = (
    [
        (scheduler, family, PREFIXES[family][number % 3], udp)
        for number, (scheduler, family, udp) in enumerate(
            product(SCHEDULERS, FAMILIES, (False, True))
        )
    ]
    if MANY
    else [
        ("maglev", 4, 32, False),
        ("rr", 6, 64, True),
        ("random", 4, 24, True),
        ("least-connections", 6, 128, False),
    ]
)


@contextmanager
def crowd_of(
    network: Network, path: Path, family: int, scheduler: str, **persistence: Any
) -> Iterator[tuple[Persistent, Crowd]]:
    """A service that remembers clients, and clients: four of a prefix that makes several one."""
    whole, usual = (32, 24) if family == 4 else (128, 64)
    bits = persistence.get("prefix" if family == 4 else "prefix6", whole)
    step = 1 << (whole - (usual if bits == whole else bits) - 2)
    with (
        Persistent(network, path / "tula.yaml", scheduler, **persistence) as web,
        Crowd(network, web.client, vip_of(network, family), step=step).here() as crowd,
    ):
        yield web, crowd


@pytest.mark.parametrize(("scheduler", "family", "prefix", "udp"), CASES)
def test_who_moves_and_why(
    four_backends: Network, tmp_path: Path, scheduler: str, family: int, prefix: int, udp: bool
) -> None:
    key = "prefix" if family == 4 else "prefix6"
    with crowd_of(four_backends, tmp_path, family, scheduler, **{key: prefix}) as (web, crowd):

        def ask(clients: range = CLIENTS, times: int = 1, port: int = 80) -> dict[int, str]:
            return one(crowd.connect(clients, times, port, udp=udp))

        first = ask(times=5)
        assert set(first.values()) == {"backend-1", "backend-2", "backend-3"}
        if prefix not in (32, 128):
            groups = {client // 4: name for client, name in first.items()}
            assert first == {client: groups[client // 4] for client in CLIENTS}
        if scheduler in ("maglev", "source-hash"):
            assert first == hashed(web, crowd, CLIENTS)
        assert not web.apply()
        assert ask(port=81) == first, "the same applied again"
        web.weigh(b1=100, b2=100, b3=100, b4=100)
        assert ask() == first, "one more backend"
        assert "backend-4" in ask(STRANGERS).values()
        web.weigh(b1=1, b2=100, b3=100, b4=300)
        assert ask() == first, "other weights"
        web.weigh(b1=1, b2=0, b3=100, b4=300)
        assert ask() == first, "a drained backend keeps its clients"
        assert "backend-2" not in ask(OTHERS).values()
        web.web["persistence"]["drain"] = "release"
        assert web.apply()
        then = ask()
        assert set(moved(first, then).values()) == {"backend-2"}, "released"
        assert "backend-2" not in then.values()
        web.weigh(b1=1, b2=100, b3=100, b4=300)
        assert ask() == then, "nobody goes back"
        web.weigh(b1=1, b2=100, b4=300)
        last = ask()
        assert set(moved(then, last).values()) == {"backend-3"}, "removed"
        assert "backend-3" not in last.values()
        web.lb.run(["nft", "flush", "ruleset"])
        assert web.apply()
        after = ask()
        if scheduler in ("maglev", "source-hash"):
            by_hash = hashed(web, crowd, CLIENTS)
            assert after == by_hash
            stay = {client for client in CLIENTS if last[client] == by_hash[client]}
            assert not stay & moved(last, after).keys(), "what the hash finds again"


@pytest.mark.parametrize("family", FAMILIES)
def test_clients_of_a_disabled_backend_move_and_no_others(
    four_backends: Network, tmp_path: Path, family: int
) -> None:
    """So do those of a dead one, which is the same to the rules; see test_persistence_daemon."""
    with crowd_of(four_backends, tmp_path, family, "rr") as (web, crowd):
        first = one(crowd.connect(CLIENTS, 2))
        call_tula(web.lb, "disable", "web/backend-2")
        then = one(crowd.connect(CLIENTS, 2))
        assert set(moved(first, then).values()) == {"backend-2"}
        assert "backend-2" not in then.values()
        call_tula(web.lb, "enable", "web/backend-2")
        assert one(crowd.connect(CLIENTS)) == then


SCOPES = {
    "service": False,
    "vip": True,
    "call": True,
}


@pytest.mark.parametrize(("scope", "shared"), SCOPES.items())
def test_services_of_one_scope_have_one_backend_for_a_client(
    four_backends: Network, tmp_path: Path, scope: str, shared: bool
) -> None:
    """FTP and its data, SIP over UDP and TCP; each with a scheduler of its own. A change of the
    backends moves none of them."""
    with crowd_of(four_backends, tmp_path, 4, "rr", scope=scope) as (web, crowd):
        services = web.configuration["services"]
        same = {"persistence": web.web["persistence"]}
        services["sip"] = web.service(ports=[5060], protocol=["udp", "tcp"], **same)
        services["data"] = web.service(ports=["30000-30100"], scheduler="random", **same)
        web.apply()

        def ask() -> list[dict[int, str]]:
            return [
                one(crowd.connect(CLIENTS, 2)),
                one(crowd.connect(CLIENTS, 1, 5060, udp=True)),
                one(crowd.connect(CLIENTS, 1, 30077)),
                one(crowd.connect(CLIENTS, 1, 5060)),
            ]

        first, *others = ask()
        assert all(other == first for other in others) is shared
        if not shared:
            assert others[0] == others[2], "one service, over UDP and TCP"
        for service in services.values():
            service["backends"] |= {
                "backend-4": {"address": web.network.backends[3].addresses("eth0")[:2]}
            }
            service["backends"]["backend-1"]["weight"] = 0
        web.apply()
        assert ask() == [first, *others], "one more, and one that drains"


def test_an_entry_lives_as_long_as_its_client_is_there(
    four_backends: Network, tmp_path: Path
) -> None:
    with crowd_of(four_backends, tmp_path, 4, "rr", timeout="90s") as (web, crowd):
        client = crowd.address(0)

        def seconds(*flags: int, port: int = 2000) -> float:
            crowd.send([Packet(0, port, flags=each) for each in flags])
            held = web.held(client)
            assert held is not None
            return held[1]

        assert seconds(SYN) <= 60, "a SYN may be anybody's"
        assert seconds(ACK) > 7200, "as long as the flow's own entry"
        assert seconds(SYN, port=2001) > 7200, "another SYN changes nothing"
        assert seconds(FIN | ACK) <= 90, "a connection ends"
        assert seconds(ACK) <= 90, "and the client has seen the other FIN"
        assert seconds(ACK, port=2001) > 90, "but another lives"
        web.web["persistence"]["timeout"] = "1s"
        web.apply()
        assert web.held(client) is not None, "who is remembered stays so"
        crowd.send([Packet(0, 2001, flags=FIN | ACK)])
        wait_until(lambda: web.held(client) is None, what="the end of the entry")
        crowd.send([Packet(0, 2002, flags=0)])
        held = web.held(client)
        assert held is None or held[1] <= 1, "a first datagram"


def test_a_live_connection_keeps_its_client_when_another_ends(
    four_backends: Network, tmp_path: Path
) -> None:
    """By a timeout shorter than flows are hot elsewhere: they pass the rules in time."""
    with crowd_of(four_backends, tmp_path, 4, "rr", timeout="8s") as (web, crowd):
        client = crowd.address(0)
        crowd.send([Packet(0, 2000, flags=flags) for flags in (SYN, ACK, ACK)])
        crowd.send([Packet(0, 2001, flags=flags) for flags in (SYN, ACK, FIN | ACK)])
        held = web.held(client)
        assert held is not None
        assert held[1] <= 8

        def kept() -> bool:
            crowd.send([Packet(0, 2000, flags=ACK)])
            held = web.held(client)
            assert held is not None, "forgotten, though a connection lives"
            return held[1] > 8

        wait_until(kept, what="the live connection to keep its client")


def test_a_live_flow_stays_where_it_is(four_backends: Network, tmp_path: Path) -> None:
    """Its backend drains and releases its clients: new connections go elsewhere, it does not. A
    client that uses its port again is new."""
    with crowd_of(four_backends, tmp_path, 4, "rr", drain="release") as (web, crowd):
        flows = [Packet(client, 3000) for client in CLIENTS]
        first = crowd.send(flows)
        live = crowd.send(flow._replace(flags=ACK) for flow in flows)
        web.weigh(b1=0, b2=100, b3=100)
        others = one(crowd.connect(CLIENTS))
        assert {first[flow] for flow in flows if others[flow.client] != first[flow]} == {
            "backend-1"
        }
        assert crowd.send(live) == live
        again = crowd.send(flows)
        assert {flow.client: name for flow, name in again.items()} == others


@pytest.mark.parametrize(("family", "scheduler"), [(6, "maglev"), (4, "rr")])
def test_a_full_map_goes_on_and_is_counted(
    four_backends: Network, tmp_path: Path, family: int, scheduler: str
) -> None:
    """Beside a full table of flows: who is remembered stays, all others go by their hash."""
    many = 100_000 if MANY else 1500
    with crowd_of(four_backends, tmp_path, family, scheduler) as (web, crowd):
        web.configuration["connections"] = {"size": 1024}
        web.apply()
        first: dict[int, str] = {}
        for at in range(0, many, 500):  # a SYN's entry does not wait long for its ACK
            first |= one(crowd.connect(range(at, at + 500)))
        assert web.counter("clients_full") >= many - 1024
        told = web.status()
        if told["services"][0]["persistence"]["clients"] is not None:  # from Linux 6.18 on
            full = f"persistence of web: the table of IPv{family} clients is full"
            assert [line for line in told["problems"] if line.startswith(full)]
        asked = range(0, many, many // 50)
        known = {client for client in asked if web.held(crowd.address(client)) is not None}
        assert 0 < len(known) < len(asked)
        web.weigh(b1=100, b2=100, b3=100, b4=100)
        then = one(crowd.connect(asked))
        assert not moved({c: first[c] for c in known}, then)
        for client in then.keys() - known:
            assert then[client] == web.hashed(crowd.address(client))


def test_persistence_comes_changes_and_goes_under_live_flows(
    four_backends: Network, tmp_path: Path
) -> None:
    with crowd_of(four_backends, tmp_path, 4, "rr") as (web, crowd):
        services = web.configuration["services"]
        services["other"] = web.service(ports=[8080], persistence="10m", scheduler="rr")
        web.apply()
        others = one(crowd.connect(CLIENTS, 1, 8080))
        settings = web.web.pop("persistence")
        flows = crowd.send(Packet(client, 900) for client in CLIENTS)
        live = crowd.send(flow._replace(flags=ACK) for flow in flows)
        for persistence in (
            None,
            settings,
            {**settings, "prefix": 24},
            {**settings, "prefix": 24, "timeout": "7m"},
            {**settings, "scope": "vip"},
            None,
        ):
            web.web["persistence"] = persistence
            if persistence is None:
                del web.web["persistence"]
            web.apply()
            assert crowd.send(live) == live, persistence
            assert one(crowd.connect(CLIENTS, 1, 8080)) == others, "another scope's"
            found = crowd.connect(CLIENTS, 5)
            if persistence is not None:
                one(found)
            else:
                assert any(len(names) > 1 for names in found.values())
