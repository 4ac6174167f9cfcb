"""What a configuration of several balancers may say, and hardly means."""

from __future__ import annotations

import pytest

from tula.config.errors import place
from tula.config.load import parse_config

PAIR = "load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3}\n"
API = "api: {listen: '0.0.0.0:8420'}\n"
VRRP = "high_availability: {vrrp: {id: 84}}\n"
WEB = """\
services:
  web: {vip: 10.0.0.100, ports: 80, forwarding: l2, backends: {b1: {address: 10.0.0.11}}}
"""


def warnings(text: str) -> list[str]:
    loaded = parse_config("interfaces: [eth0]\n" + text)
    placed = [place(problem, loaded.positions) for problem in loaded.warnings]
    return [f"{p.line}:{p.column}: {p.path}: {p.message}" for p in placed]


def test_a_pair_has_none() -> None:
    assert warnings(PAIR + API + VRRP + WEB) == []
    own = "api: {listen: '10.0.0.3:8420'}\n"
    assert warnings(PAIR + own + VRRP + WEB) == [], "each may listen on its own address"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            PAIR + "high_availability: {flows: all}\n",
            "3:1: high_availability: there is neither vrrp nor bgp, so nothing of this has an "
            "effect",
        ),
        (
            "load_balancers: {lb1: 10.0.0.2}\n" + API + VRRP,
            "2:1: load_balancers: there is no other balancer, so nobody takes over; list them all",
        ),
        (
            PAIR + API + "high_availability: {vrrp: {id: 84, interval: 30ms}}\n",
            "4:46: high_availability.vrrp.interval: 30ms is short: a busy balancer is late by "
            "more, and is taken for dead; give 100ms or more",
        ),
        (
            PAIR + API + "high_availability: {bgp: {as: 1, routers: {10.0.0.1: 2}, bfd: 60ms}}\n",
            "4:63: high_availability.bgp.bfd: 60ms is short: a busy machine is late by more, and "
            "is taken for dead; give 200ms or more",
        ),
        (
            PAIR + VRRP,
            "3:1: high_availability: balancers cannot see that others have another configuration, "
            'or are gone; give api: {listen: "0.0.0.0:8420"}',
        ),
        (
            PAIR + "api: {listen: '127.0.0.1:8420'}\n" + VRRP,
            "3:15: api.listen: the others ask how this balancer is by its address in "
            'load_balancers, and hear nothing; give api: {listen: "0.0.0.0:8420"}',
        ),
        (
            PAIR + API + "high_availability: {vrrp: {id: 84}, flows: all}\n"
            "connections: {enabled: false}\n",
            "4:44: high_availability.flows: this has no effect: it needs the connection table, "
            "which is disabled; give none, or set connections: {enabled: true}",
        ),
    ],
)
def test_of_the_whole(text: str, warning: str) -> None:
    assert warnings(text + WEB) == [warning]


def test_balancers_by_ipv6() -> None:
    six = "load_balancers: {lb1: '2001:db8::2', lb2: '2001:db8::3'}\n"
    large = (
        "2:23: load_balancers.lb1: between IPv6 addresses no packet of more than 1430 bytes tells "
        "the other balancers of its flow (MTU 1500); give IPv4 addresses if the balancers have some"
    )
    deaf = (
        "3:15: api.listen: the others ask how this balancer is by its address in "
        'load_balancers, and hear nothing; give api: {listen: "[::]:8420"}'
    )
    assert warnings(six + API + VRRP + WEB) == [large, deaf]
    none = "high_availability: {vrrp: {id: 84}, flows: none}\n"
    assert warnings(six + API.replace("0.0.0.0", "[::]") + none + WEB) == []


@pytest.mark.parametrize("flows", ["moved", "none", "all"])
def test_schedulers_whose_flows_only_the_table_knows(flows: str) -> None:
    settings = f"high_availability: {{vrrp: {{id: 84}}, flows: {flows}}}\n"
    rr = "defaults: {scheduler: rr}\n" + WEB
    other = "  dns: {vip: 10.0.0.101, ports: 53, forwarding: l2, backends: {}, scheduler: maglev}\n"
    expected = [] if flows == "all" else [
        "5:23: defaults.scheduler: connections of rr break when another balancer takes over, "
        "which does not know them; set high_availability: {flows: all}, or use maglev or "
        "source-hash"
    ]  # fmt: skip
    assert warnings(PAIR + API + settings + rr + other) == expected
    assert warnings(PAIR + rr) == [], "nobody takes over"


def test_announce_while() -> None:
    web = WEB.replace("l2, ", "l2, health: {type: tcp, announce_while: 2}, ")
    path = "services.web.health.announce_while"
    assert warnings(PAIR + API + VRRP + web) == [
        f"6:89: {path}: service 'web' has fewer backends (1), so it never counts as served; give "
        "1 or less"
    ]
    assert warnings(web) == [f"3:89: {path}: this has no effect without high_availability"]
    assert warnings(PAIR + API + VRRP + web.replace("while: 2", "while: 1")) == []


def test_an_engine_is_no_interface() -> None:
    """That it is not listed under interfaces says nothing."""
    assert warnings(PAIR + API + VRRP + WEB.replace("l2,", "l2, announce: vrrp,")) == []


def test_more_than_one_family_and_a_group_of_peers_may_be() -> None:
    bgp = "high_availability: {bgp: {as: 65001, routers: {10.0.0.1: 65001, '2001:db8::1': 7}}}\n"
    loaded = parse_config("interfaces: [eth0]\n" + PAIR + API + bgp + WEB)
    assert loaded.config.high_availability.bgp is not None
    assert [number for _, number in loaded.config.high_availability.bgp.routers] == [65001, 7]
