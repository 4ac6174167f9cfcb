"""What a machine must have to serve, from configurations."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_config, make_service
from tula.agent.plan import Role, plan_backend_setup, role_by_addresses, role_by_name
from tula.model.backend_setup import Device
from tula.model.config import Backend, Config, Tunnel, TunnelSettings

FOUR = Backend("four", (ip_address("10.0.1.1"),))
SIX = Backend("six", (ip_address("2001:db8::6"),))
VIPS = ("10.0.0.100", "2001:db8::100")


def config(
    tunnel: Tunnel | None, *backends: Backend, balancers: tuple[str, ...] = ("10.0.0.2",)
) -> Config:
    made = make_config(make_service("web", VIPS, backends=backends, tunnel=tunnel))
    named = tuple((f"lb{n}", ip_address(text)) for n, text in enumerate(balancers))
    return replace(made, load_balancers=named)


def role(made: Config, name: str) -> Role:
    found = role_by_name(made, name)
    assert found is not None
    return found


def test_a_machine_is_found_by_its_name_or_by_any_of_its_addresses() -> None:
    made = make_config(
        make_service("a", backends=[FOUR, SIX]),
        make_service("b", backends=[Backend("other-name", FOUR.addresses)]),
    )
    by_name = role(made, "four")
    assert [(s.name, b.name) for s, b in by_name.serves] == [("a", "four"), ("b", "other-name")]
    assert role_by_addresses(made, [ip_address("10.0.1.1")]) == by_name
    assert role_by_addresses(made, [ip_address("10.0.1.9")]) is None
    assert role_by_name(made, "nobody") is None


def test_l2_needs_no_tunnel_and_no_filter() -> None:
    side = plan_backend_setup([role(config(None, FOUR), "four")], "tula-vips")
    assert side.devices == (Device("tula-vips", "dummy"),)
    assert (side.filter, side.ports) == ("", ())
    assert [(str(held.vip), held.device) for held in side.vips] == [(v, "tula-vips") for v in VIPS]


@pytest.mark.parametrize("tunnel", list(Tunnel))
def test_a_tunnel_has_an_end_a_filter_and_an_address_for_loose_filtering(tunnel: Tunnel) -> None:
    side = plan_backend_setup([role(config(tunnel, FOUR), "four")])
    (end,) = side.devices
    assert end.loose_rp_filter
    assert (ip_address(VIPS[0]), end.name) in [(held.vip, held.device) for held in side.vips]
    assert f'iifname {{ "{end.name}" }} ip daddr != {{ {VIPS[0]}, {FOUR.key} }}' in side.filter
    closed = tunnel in (Tunnel.GUE, Tunnel.VXLAN)
    assert ("ip saddr != 10.0.0.2 counter drop" in side.filter) is closed


def test_without_balancers_of_the_version_anyone_may_send() -> None:
    for tunnel in (Tunnel.GUE, Tunnel.VXLAN):
        side = plan_backend_setup([role(config(tunnel, SIX), "six")])
        assert "saddr !=" not in side.filter
    (end,) = plan_backend_setup([role(config(Tunnel.GRE, SIX), "six")]).devices
    assert end.options[-2:] == ("remote", "::")


def test_two_documents_keep_apart_what_differs() -> None:
    one = config(Tunnel.VXLAN, FOUR)
    other = replace(config(Tunnel.VXLAN, FOUR, balancers=("10.0.0.3",)), tunnels=TunnelSettings(99))
    side = plan_backend_setup([role(one, "four"), role(other, "four")])
    assert len({end.name for end in side.devices}) == 2
    assert "21621 ip saddr != 10.0.0.2 " in side.filter
    assert "99 ip saddr != 10.0.0.3 " in side.filter
    same = replace(one, load_balancers=other.load_balancers)
    both = plan_backend_setup([role(one, "four"), role(same, "four")])
    assert "ip saddr != { 10.0.0.2, 10.0.0.3 }" in both.filter
    open_ = replace(one, load_balancers=())
    assert "saddr != 10" not in plan_backend_setup([role(one, "four"), role(open_, "four")]).filter


def test_segments_fit_into_the_narrowest_tunnel_and_link() -> None:
    services = [
        make_service(str(tunnel), VIPS, backends=[FOUR], tunnel=tunnel)
        for tunnel in (Tunnel.IPIP, Tunnel.VXLAN)
    ]
    made = role(make_config(*services), "four")
    assert "maxseg size set 1410" in plan_backend_setup([made]).filter
    assert "maxseg size set 1310" in plan_backend_setup([made], mtu=1400).filter
    assert "maxseg size set 1410" in plan_backend_setup([made], mtu=9000).filter
