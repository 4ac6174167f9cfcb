"""Others' chains at interfaces, as nft makes them and netlink tells them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tula.kernel.base_chains import read_base_chains
from tula.kernel.network import read_link_states
from tula.lab import Host, Lab
from tula.model.chain import BaseChain, ChainRule, Match

pytestmark = pytest.mark.kernel

RULES = """
table netdev guard {
    chain other { drop; }
    chain early {
        type filter hook ingress device "eth0" priority -600; policy drop;
        ip daddr 10.9.0.100 tcp dport 80 counter drop
        ip daddr 10.9.0.0/24 jump other
        ip saddr { 10.1.0.0/16, 10.2.0.0/16 } accept
        fwd to "eth0"
    }
    chain late { type filter hook egress device "eth0" priority 7; }
}
table inet guard {
    chain in { type filter hook input priority 0; drop; }
    chain early { type filter hook ingress device "eth0" priority -700; meta l4proto udp drop; }
}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with Lab() as lab:
        yield lab.host("one", lab.switch(), "10.9.0.2/24")


def found(host: Host) -> dict[str, BaseChain]:
    with host.enter():
        return {str(chain): chain for chain in read_base_chains()}


def test_what_nft_made(host: Host) -> None:
    host.run(["nft", "-f", "-"], input=RULES)
    chains = found(host)
    assert set(chains) == {"netdev guard early", "netdev guard late", "inet guard early"}
    early = chains["netdev guard early"]
    assert (early.hook, early.devices, early.priority, early.drops) == (
        "ingress",
        ("eth0",),
        -600,
        True,
    )
    first, second, third, fourth = early.rules
    vip = Match(("network", 16, 4), True, bytes([10, 9, 0, 100]))
    assert {vip, Match(("transport", 2, 2), True, b"\0P")} <= set(first.matches)
    assert (first.verdict, first.partial) == ("drop", False)
    assert Match(("network", 16, 3), True, bytes([10, 9, 0])) in second.matches
    assert (second.verdict, second.chain) == ("jump", "other")
    assert (third.verdict, third.partial) == ("accept", True)
    assert (fourth.verdict, fourth.partial) == ("drop", False)
    assert early.others["other"] == (ChainRule(verdict="drop"),)
    late = chains["netdev guard late"]
    assert (late.hook, late.priority, late.drops, late.rules) == ("egress", 7, False, ())
    udp = chains["inet guard early"]
    assert udp.rules == (ChainRule((Match(("l4proto", 0, 1), True, b"\x11"),), False, "drop"),)


def test_tulas_own_are_no_others(host: Host) -> None:
    table = (
        'table netdev tula { chain a { type filter hook ingress device "eth0" priority -500; }; }'
    )
    host.run(["nft", table])
    assert found(host) == {}


def test_states_of_links(host: Host) -> None:
    with host.enter():
        before = read_link_states()["eth0"]
    host.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
    host.set_cable("eth0", False)
    with host.enter():
        after = read_link_states()["eth0"]
    assert (before.up, before.carrier, before.programs) == (True, True, ())
    assert (after.up, after.carrier, after.programs) == (True, False, ("a tc ingress hook",))
