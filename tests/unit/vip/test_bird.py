"""BIRD's configuration, for each kind of session."""

from __future__ import annotations

from ipaddress import ip_address

from tula.model.bgp import BgpSession, DesiredBgp
from tula.vip.bird import render_bird, session_name

OWN4, OWN6 = ip_address("10.0.0.2"), ip_address("2001:db8::2")
NEAR4 = BgpSession(ip_address("10.0.0.1"), 65000, OWN4, "eth0", ((4, None),))
NEAR6 = BgpSession(ip_address("2001:db8::1"), 65000, OWN6, "eth0", ((6, None),))
FAR4 = BgpSession(ip_address("192.0.2.1"), 4200000000, OWN4, "", ((4, None), (6, OWN6)))
INSIDE6 = BgpSession(ip_address("2001:db8:1::1"), 65001, OWN6, "", ((6, None), (4, None)))


def render(*sessions: BgpSession, bfd: float = 0.3) -> str:
    return render_bird(DesiredBgp(ip_address("10.0.0.2"), 65001, bfd, sessions))  # type: ignore[arg-type]


def block(text: str, session: BgpSession) -> str:
    """What is said of one session."""
    start = text.index(f"protocol bgp {session_name(session.router)} {{")
    return text[start : text.index("\n}\n", start)]


def test_sessions_are_of_their_kinds() -> None:
    text = render(NEAR4, NEAR6, FAR4, INSIDE6)
    near, far, inside = block(text, NEAR4), block(text, FAR4), block(text, INSIDE6)
    assert "direct;" in near
    assert 'interface "eth0";' in near
    assert "ipv4 { import none; export filter tula_external; };" in near
    assert "ipv6" not in near
    assert "multihop;" in far
    assert "interface" not in far
    assert "next hop address 2001:db8::2;" in far
    assert "ipv4 { import none; export filter tula_internal; extended next hop; };" in inside
    assert "min rx interval 100000 us; min tx interval 100000 us; multiplier 3;" in near


def test_without_bfd_there_is_none() -> None:
    assert "bfd" not in render(NEAR4, bfd=0)


def test_another_router_changes_nothing_of_the_first() -> None:
    assert block(render(NEAR4), NEAR4) == block(render(NEAR6, NEAR4), NEAR4)
