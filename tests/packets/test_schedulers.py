"""Schedulers that give new flows their turn, and the hash that needs no memory.

::

    client-1 (300 flows at a time)      lb           backend-1 … 4
         │                              │                │   (VIPs on lo)
    ═════╧══════════════════════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

from collections import Counter

import pytest

from support.lab_configurations import backends_of
from support.packets import FAMILIES, PROTOCOLS
from support.serving import Answers, Held, Serving
from tula.lab import ask_all

pytestmark = pytest.mark.kernel

PORTS = range(26000, 26300)


def weigh(serving: Serving, scheduler: str, *weights: int) -> None:
    """The first backends by these weights."""
    backends = serving.network.backends
    serving.web["backends"] = {
        name: keys
        for backend, weight in zip(backends, weights, strict=False)
        for name, keys in backends_of(backend, weight=weight).items()
    }
    serving.web["scheduler"] = scheduler
    serving.apply()


def ask(serving: Serving, family: int, protocol: str, count: int = len(PORTS)) -> Answers:
    """So many new flows, and each asked twice: it keeps its backend."""
    ports = PORTS[:count]
    if protocol == "tcp":
        opened = serving.connect(family, ports)
        first = {flow.source_port: flow.backend for flow in opened}
        assert ask_all(opened) == first
    else:
        first = serving.udp(family, ports)
        assert serving.udp(family, ports) == first
    return first


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rr_gives_flows_to_one_after_the_other(
    serving: Serving, family: int, protocol: str
) -> None:
    weigh(serving, "rr", 5, 70, 100)
    counted = Counter(ask(serving, family, protocol).values())
    assert counted == {"backend-1": 100, "backend-2": 100, "backend-3": 100}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_wrr_gives_flows_by_weight(serving: Serving, family: int, protocol: str) -> None:
    weigh(serving, "wrr", 100, 200, 300, 0)
    counted = Counter(ask(serving, family, protocol).values())
    assert counted == {"backend-1": 50, "backend-2": 100, "backend-3": 150}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_random_gives_flows_roughly_by_weight(serving: Serving, family: int, protocol: str) -> None:
    weigh(serving, "random", 100, 200, 300, 0)
    counted = Counter(ask(serving, family, protocol).values())
    print(f"IPv{family} {protocol}, random 1:2:3: {dict(counted)}")
    for name, expected in (("backend-1", 50), ("backend-2", 100), ("backend-3", 150)):
        # Five standard deviations of independent draws.
        assert abs(counted[name] - expected) < 5 * (expected * (1 - expected / 300)) ** 0.5
    assert counted.total() == 300


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "random"])
def test_weight_0_gets_nothing_new_and_keeps_what_it_has(serving: Serving, scheduler: str) -> None:
    weigh(serving, scheduler, 100, 100, 100)
    held = Held(serving)
    weigh(serving, scheduler, 0, 100, 100)
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            assert set(ask(serving, family, protocol).values()) == {"backend-2", "backend-3"}
    assert held.answers() == held.backends


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "random"])
def test_a_service_whose_backends_all_drain_takes_nobody(serving: Serving, scheduler: str) -> None:
    weigh(serving, scheduler, 100, 100)
    held = Held(serving, 20)
    weigh(serving, scheduler, 0, 0)
    assert held.answers() == held.backends
    assert serving.udp(4, range(27000, 27010), timeout=0.3, allow_loss=True) == {}


@pytest.mark.parametrize("scheduler", ["maglev", "source-hash"])
def test_a_lost_table_is_no_loss_to_a_hash(serving: Serving, scheduler: str) -> None:
    serving.web["scheduler"] = scheduler
    serving.apply()
    held = Held(serving)
    # Nothing may arrive meanwhile: the balancer has the VIP, and would answer with RST.
    hook = "{ type filter hook ingress device eth0 priority -600; policy drop; }"
    rules = f"add table netdev shut\nadd chain netdev shut out {hook}\ndelete table netdev tula"
    serving.lb.run(["nft", "-f", "-"], input=rules)
    assert serving.apply()
    serving.lb.run(["nft", "delete", "table", "netdev", "shut"])
    assert held.answers() == held.backends


@pytest.mark.parametrize("scheduler", ["maglev", "source-hash"])
def test_without_the_table_of_connections_a_hash_still_balances(
    serving: Serving, scheduler: str
) -> None:
    serving.configuration["connections"] = {"enabled": False}
    weigh(serving, scheduler, 100, 100, 100)
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            answered = ask(serving, family, protocol, 150)
            assert answered == {p: serving.by_hash(family, protocol, p) for p in PORTS[:150]}
            assert len(set(answered.values())) == (3 if scheduler == "maglev" else 1)
    assert [name for name in serving.status()["connections"] if "frag" not in name] == []


def test_the_table_of_connections_is_turned_off_and_on_again(serving: Serving) -> None:
    held = Held(serving)
    for enabled in (False, True):
        serving.configuration["connections"] = {"enabled": enabled}
        assert serving.apply()
        assert held.answers() == held.backends, "nothing else changed: the hash finds them"
