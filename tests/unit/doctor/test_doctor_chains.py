"""Which of others' chains take clients' packets, decided without a kernel."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.chains import Drops, SamplePacket, check_chains, dropped_at_egress, drops_packet
from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.chain import BaseChain, ChainRule, Match
from tula.model.finding import Severity

VIP = ip_address("10.0.0.100")
WEB = SamplePacket(VIP, 6, 80)
TO_VIP = Match(("network", 16, 4), True, VIP.packed)
TO_ANOTHER = Match(("network", 16, 4), True, bytes(4))
NOT_VIP = Match(("network", 16, 4), False, VIP.packed)
SUBNET = Match(("network", 16, 3), True, VIP.packed[:3])
PORT_80 = Match(("transport", 2, 2), True, b"\0P")
PORT_23 = Match(("transport", 2, 2), True, b"\0\x17")
OF_ONE = Match(("network", 12, 4), True, bytes(4))
DROP, ACCEPT = "drop", "accept"


def chain(*rules: ChainRule, drops: bool = False, **others: tuple[ChainRule, ...]) -> BaseChain:
    return BaseChain("netdev", "guard", "early", "ingress", ("eth0",), -600, drops, rules, others)


CASES = [
    ("empty", chain(), Drops.NO),
    ("policy", chain(drops=True), Drops.YES),
    ("all", chain(ChainRule(verdict=DROP)), Drops.YES),
    ("vip", chain(ChainRule((TO_VIP,), verdict=DROP)), Drops.YES),
    ("vip and port", chain(ChainRule((TO_VIP, PORT_80), verdict=DROP)), Drops.YES),
    ("another", chain(ChainRule((TO_ANOTHER,), verdict=DROP)), Drops.NO),
    ("another port", chain(ChainRule((TO_VIP, PORT_23), verdict=DROP)), Drops.NO),
    ("all but the vip", chain(ChainRule((NOT_VIP,), verdict=DROP)), Drops.NO),
    ("its subnet", chain(ChainRule((SUBNET,), verdict=DROP)), Drops.YES),
    ("one client's", chain(ChainRule((OF_ONE,), verdict=DROP)), Drops.MAYBE),
    ("with more", chain(ChainRule((TO_VIP,), partial=True, verdict=DROP)), Drops.MAYBE),
    ("accepted before", chain(ChainRule((TO_VIP,), verdict=ACCEPT), drops=True), Drops.NO),
    ("some accepted", chain(ChainRule((OF_ONE,), verdict=ACCEPT), drops=True), Drops.MAYBE),
    (
        "some accepted before all are dropped",
        chain(ChainRule((OF_ONE,), verdict=ACCEPT), ChainRule(verdict=DROP)),
        Drops.MAYBE,
    ),
    ("some accepted, and no more", chain(ChainRule((OF_ONE,), verdict=ACCEPT)), Drops.NO),
    (
        "some accepted by a jump",
        chain(
            ChainRule((OF_ONE,), False, "jump", "known"),
            ChainRule(verdict=DROP),
            known=(ChainRule(verdict=ACCEPT),),
        ),
        Drops.MAYBE,
    ),
    ("counted", chain(ChainRule((TO_VIP,))), Drops.NO),
    (
        "by a jump",
        chain(ChainRule((TO_VIP,), False, "jump", "bad"), bad=(ChainRule(verdict=DROP),)),
        Drops.YES,
    ),
    (
        "back from a jump",
        chain(
            ChainRule((), False, "jump", "some"),
            ChainRule(verdict=DROP),
            some=(ChainRule(verdict="return"),),
        ),
        Drops.YES,
    ),
    (
        "by a goto and the policy",
        chain(ChainRule((), False, "goto", "some"), drops=True, some=()),
        Drops.YES,
    ),
    (
        "in circles",
        chain(ChainRule((), False, "jump", "a"), a=(ChainRule((), False, "jump", "a"),)),
        Drops.NO,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_drops_packet(made: BaseChain, wanted: Drops) -> None:
    assert drops_packet(made, WEB) is wanted


def test_only_what_comes_before_tula_at_an_interface_in_use() -> None:
    config = make_config(make_service(backends=[make_backend(0, dual=False)]))
    drop = (ChainRule(verdict=DROP),)
    chains = [
        BaseChain("netdev", "g", "early", "ingress", ("eth0",), -600, rules=drop),
        BaseChain("netdev", "g", "late", "ingress", ("eth0",), -400, rules=drop),
        BaseChain("netdev", "g", "other", "ingress", ("eth9",), -600, rules=drop),
        BaseChain("netdev", "g", "out", "egress", ("eth0",), 0, rules=drop),
        BaseChain("netdev", "g", "soft", "ingress", ("eth0",), -600, rules=(
            ChainRule((OF_ONE,), verdict=DROP),)),
    ]  # fmt: skip
    observed = Observation(config, make_host(config), chains=chains)
    found = {f.evidence.split()[2:5][-1]: f for f in check_chains(observed, Responses())}
    assert {name: f.severity for name, f in found.items()} == {
        "early": Severity.ERROR,
        "out": Severity.ERROR,
        "soft": Severity.NOTE,
    }
    assert dropped_at_egress(observed) == {("eth0", VIP)}
