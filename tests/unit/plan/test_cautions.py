"""What a machine's network does to a configuration, as far as packets need not show it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface

from support.builders import make_backend, make_config, make_host, make_service
from tula.model.config import Config, Tunnel
from tula.model.host import HostAddress, HostView, Link
from tula.plan.cautions import Caution
from tula.plan.routes import plan_routes

B0 = make_backend(0)
ROUTED = make_config(make_service(vips=["10.0.0.100"], backends=[B0], announce=False))
OTHER = Link("other", 9, b"\x02\0\0\0\0\x09")


def cautions(config: Config, *links: Link, host: HostView | None = None) -> list[Caution]:
    host = host or make_host(config)
    host = replace(host, links={**host.links, **{link.name: link for link in links}})
    return plan_routes(config, host, force=True).cautions


def with_address(config: Config, name: str, address: str) -> HostView:
    host = make_host(config)
    return replace(host, addresses=(*host.addresses, HostAddress(name, ip_interface(address))))


def told(config: Config, name: str, link: Link) -> list[str]:
    """Of a VIP on that interface."""
    host = with_address(config, name, "10.0.0.100/32")
    return [caution.interface for caution in cautions(config, link, host=host)]


def test_a_right_machine_has_none() -> None:
    assert cautions(ROUTED) == []


def test_a_vip_on_another_interface() -> None:
    assert told(ROUTED, "other", OTHER) == ["other"]


def test_where_nothing_arrives_from_outside() -> None:
    assert told(ROUTED, "lo", Link("lo", 1)) == []
    assert told(ROUTED, "other", replace(OTHER, kind="dummy")) == []


def test_a_bridge_hears_of_its_ports_what_they_heard() -> None:
    eth0 = replace(make_host(ROUTED).links["eth0"], master=OTHER.index)
    host = with_address(ROUTED, "other", "10.0.0.100/32")
    assert cautions(ROUTED, replace(OTHER, kind="bridge"), eth0, host=host) == []


def test_a_macvlan_above_a_listed_interface_only() -> None:
    above = replace(OTHER, kind="macvlan", lower=2)
    assert [caution.id for caution in cautions(ROUTED, above)] == ["interface-not-listed"]
    assert cautions(ROUTED, replace(above, lower=3)) == [], "above eth1, which is not listed"
    announced = make_config(make_service(backends=[B0]))
    assert cautions(announced, above) == [], "Tula answers for the VIP, by eth0"


def test_announced_by_an_interface_that_is_not_listed() -> None:
    config = make_config(make_service(backends=[B0], announce="eth1"))
    assert [caution.interface for caution in cautions(config)] == ["eth1"]


def test_a_vip_of_the_subnet_of_another_interface() -> None:
    config = make_config(make_service(vips=["10.1.0.100"], backends=[B0], announce=False))
    assert [caution.interface for caution in cautions(config)] == ["eth1"]


def test_a_tunnel_from_a_vip() -> None:
    config = make_config(make_service(vips=["10.0.0.2"], backends=[B0], tunnel=Tunnel.IPIP))
    (caution,) = cautions(config)
    assert (caution.id, caution.severe) == ("vip-as-source", True)


def test_no_link_local_address_is_needed_for_tunnels_or_ipv4() -> None:
    for config in (
        ROUTED,
        make_config(make_service(vips=["2001:db8::100"], backends=[B0], tunnel=Tunnel.VXLAN)),
    ):
        host = make_host(config)
        kept = tuple(held for held in host.addresses if not held.address.is_link_local)
        assert cautions(config, host=replace(host, addresses=kept)) == []
