"""Which of others' chains take clients' packets, decided without a kernel."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.chains import Eats, Sample, eaten_at_egress, eats, judge_chains
from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.model.chain import BaseChain, ChainRule, Match
from tula.model.finding import Severity

VIP = ip_address("10.0.0.100")
WEB = Sample(VIP, 6, 80)
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
    ("empty", chain(), Eats.NO),
    ("policy", chain(drops=True), Eats.YES),
    ("all", chain(ChainRule(verdict=DROP)), Eats.YES),
    ("vip", chain(ChainRule((TO_VIP,), verdict=DROP)), Eats.YES),
    ("vip and port", chain(ChainRule((TO_VIP, PORT_80), verdict=DROP)), Eats.YES),
    ("another", chain(ChainRule((TO_ANOTHER,), verdict=DROP)), Eats.NO),
    ("another port", chain(ChainRule((TO_VIP, PORT_23), verdict=DROP)), Eats.NO),
    ("all but the vip", chain(ChainRule((NOT_VIP,), verdict=DROP)), Eats.NO),
    ("its subnet", chain(ChainRule((SUBNET,), verdict=DROP)), Eats.YES),
    ("one client's", chain(ChainRule((OF_ONE,), verdict=DROP)), Eats.MAYBE),
    ("with more", chain(ChainRule((TO_VIP,), partial=True, verdict=DROP)), Eats.MAYBE),
    ("accepted before", chain(ChainRule((TO_VIP,), verdict=ACCEPT), drops=True), Eats.NO),
    ("some accepted", chain(ChainRule((OF_ONE,), verdict=ACCEPT), drops=True), Eats.MAYBE),
    ("counted", chain(ChainRule((TO_VIP,))), Eats.NO),
    (
        "by a jump",
        chain(ChainRule((TO_VIP,), False, "jump", "bad"), bad=(ChainRule(verdict=DROP),)),
        Eats.YES,
    ),
    (
        "back from a jump",
        chain(
            ChainRule((), False, "jump", "some"),
            ChainRule(verdict=DROP),
            some=(ChainRule(verdict="return"),),
        ),
        Eats.YES,
    ),
    (
        "by a goto and the policy",
        chain(ChainRule((), False, "goto", "some"), drops=True, some=()),
        Eats.YES,
    ),
    (
        "in circles",
        chain(ChainRule((), False, "jump", "a"), a=(ChainRule((), False, "jump", "a"),)),
        Eats.NO,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_eats(made: BaseChain, wanted: Eats) -> None:
    assert eats(made, WEB) is wanted


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
    scene = Scene(config, make_host(config), chains=chains)
    found = {f.evidence.split()[2:5][-1]: f for f in judge_chains(scene, Answers())}
    assert {name: f.severity for name, f in found.items()} == {
        "early": Severity.ERROR,
        "out": Severity.ERROR,
        "soft": Severity.NOTE,
    }
    assert eaten_at_egress(scene) == {("eth0", VIP)}
