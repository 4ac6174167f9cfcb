"""What the doctor makes of NAT rules on a backend, decided without a kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import make_backend, make_config, make_service
from tula.agent.plan import plan_backend_setup, role_by_name
from tula.doctor.backend_state import BackendState
from tula.doctor.backend_vips import check_firewall, check_listeners
from tula.doctor.chains import SamplePacket
from tula.doctor.observation import Observation
from tula.doctor.redirects import Redirects, redirects_packet
from tula.model.chain import BaseChain, ChainRule, Match

CONFIG = make_config(make_service(backends=[make_backend(0, dual=False)]))
VIP = CONFIG.services[0].vips[0]
PORT = CONFIG.services[0].ports[0].first
MINE = Match(("transport", 2, 2), True, PORT.to_bytes(2, "big"))
ANOTHER = Match(("transport", 2, 2), True, b"\0\x17")


def state(*rules: ChainRule, legacy: tuple[int, ...] = (), **others: object) -> BackendState:
    role = role_by_name(CONFIG, CONFIG.services[0].backends[0].name)
    assert role is not None
    chain = BaseChain("ip", "nat", "PREROUTING", "prerouting", (), -100, False, rules, others)  # type: ignore[arg-type]
    want = plan_backend_setup([role])
    return BackendState(role, want, chains=(chain,), legacy_nat=frozenset(legacy))


CASES = [
    ("nothing", state(), Redirects.NO),
    ("all", state(ChainRule(redirects=True)), Redirects.YES),
    ("this port", state(ChainRule((MINE,), redirects=True)), Redirects.YES),
    ("this port on an interface", state(ChainRule((MINE,), True, redirects=True)), Redirects.YES),
    ("another port", state(ChainRule((ANOTHER,), redirects=True)), Redirects.NO),
    ("some ports", state(ChainRule((), True, redirects=True)), Redirects.MAYBE),
    (
        "accepted before",
        state(ChainRule(verdict="accept"), ChainRule(redirects=True)),
        Redirects.NO,
    ),
    (
        "by a jump under conditions",
        state(ChainRule((), True, "jump", "D"), D=(ChainRule((MINE,), redirects=True),)),
        Redirects.YES,
    ),
    (
        "by a map",
        state(ChainRule(verdict="vmap"), D=(ChainRule(redirects=True),)),
        Redirects.MAYBE,
    ),
    ("iptables-legacy", state(legacy=(4,)), Redirects.MAYBE),
    ("iptables-legacy for IPv6", state(legacy=(6,)), Redirects.NO),
]


@pytest.mark.parametrize(("made", "wanted"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_redirected(made: BackendState, wanted: Redirects) -> None:
    assert redirects_packet(made, SamplePacket(VIP, 6, PORT))[0] is wanted
    ids = {finding.id for finding in check_listeners(Observation(CONFIG), made)}
    named = {Redirects.NO: {"not-listening"}, Redirects.MAYBE: {"behind-nat"}, Redirects.YES: set()}
    assert ids == named[wanted]


@pytest.mark.parametrize(
    ("family", "table", "name", "command"),
    [
        ("ip", "filter", "INPUT", f"iptables -I INPUT -d {VIP} -p tcp --dport {PORT} -j ACCEPT"),
        ("ip", "mangle", "PREROUTING", f"iptables -t mangle -I PREROUTING -d {VIP} -p tcp"),
        ("inet", "filter", "input", f"nft insert rule inet filter input ip daddr {VIP} tcp"),
        ("inet", "firewalld", "filter_INPUT", ""),
    ],
)
def test_a_dropped_vip_is_allowed_in_its_firewall(
    family: str, table: str, name: str, command: str
) -> None:
    dropping = BaseChain(family, table, name, "input", (), 0, True)
    finding, *_ = check_firewall(Observation(CONFIG), replace(state(), chains=(dropping,)))
    assert "".join(finding.commands).startswith(command)
    assert bool(finding.commands) is bool(command)
