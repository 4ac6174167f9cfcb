"""Which tunnel devices a configuration needs, and what backends must know."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_config, make_host, make_service, make_state, number_config
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.tunnel_devices import TunnelDevice
from tula.dataplane.nft.tunnel_kinds import missing_tunnels
from tula.dataplane.nft.tunnel_plan import TunnelPlan, plan_tunnels
from tula.model.config import Backend, Config, Tunnel
from tula.model.host import Link
from tula.plan.tunnels import overhead, vxlan_mac

FOUR = Backend("four", (ip_address("10.0.1.1"),))
SIX = Backend("six", (ip_address("2001:db8::6"),))
BOTH = Backend("both", (ip_address("2001:db8::7"), ip_address("10.0.1.7")))


def plan(config: Config) -> TunnelPlan:
    return plan_tunnels(make_state(config), number_config(config, Ids()))


def web(tunnel: Tunnel, *backends: Backend, vips: tuple[str, ...] = ("10.0.0.100",)) -> Config:
    return make_config(make_service("web", vips, backends=backends, tunnel=tunnel))


def devices(config: Config) -> list[TunnelDevice]:
    found = plan(config).tunnels.devices.values()
    return sorted((d for d in found if d is not None), key=lambda d: (d.kind, str(d.remote)))


@pytest.mark.parametrize(
    ("tunnel", "backend", "kinds", "mtus"),
    [
        (Tunnel.IPIP, FOUR, ["ipip", "sit"], [1500, 1480]),
        (Tunnel.IPIP, SIX, ["ip6tnl"], [1460]),
        (Tunnel.GRE, FOUR, ["gre"], [1500]),
        (Tunnel.GRE, SIX, ["ip6gre"], [1456]),
        (Tunnel.GUE, FOUR, ["ipip", "sit"], [1500, 1468]),
        (Tunnel.GUE, SIX, ["ip6tnl"], [1448]),
        (Tunnel.VXLAN, FOUR, ["vxlan"], [1500]),
        (Tunnel.VXLAN, SIX, ["vxlan"], [1500]),
    ],
)
def test_kinds_and_mtus(
    tunnel: Tunnel, backend: Backend, kinds: list[str], mtus: list[int]
) -> None:
    found = devices(web(tunnel, backend))
    assert ([d.kind for d in found], [d.mtu for d in found]) == (kinds, mtus)


def test_ipv6_inside_needs_no_second_device() -> None:
    (device,) = devices(web(Tunnel.IPIP, FOUR, vips=("2001:db8::100",)))
    assert (device.kind, device.ttl, device.fragments) == ("sit", 64, False)


def test_a_backend_of_both_families_is_reached_by_ipv4() -> None:
    assert {str(d.remote) for d in devices(web(Tunnel.IPIP, BOTH))} == {"10.0.1.7"}


def test_services_share_devices_and_kinds_do_not_clash() -> None:
    tunnels = [Tunnel.IPIP, Tunnel.IPIP, Tunnel.GUE]
    config = make_config(
        *(
            make_service(f"s{n}", [f"10.0.0.{n}"], backends=[FOUR, SIX], tunnel=tunnel)
            for n, tunnel in enumerate(tunnels, 100)
        )
    )
    found = devices(config)
    assert len(found) == 6
    assert len({d.place for d in found}) == len({d.name for d in found}) == 6
    assert len({d.index for d in found}) == 6


def test_names_and_indices_are_the_same_each_time_and_fit() -> None:
    one, other = devices(web(Tunnel.GUE, FOUR, SIX)), devices(web(Tunnel.GUE, SIX, FOUR))
    assert [(d.name, d.index) for d in one] == [(d.name, d.index) for d in other]
    assert all(len(d.name) == 15 and (1 << 30) <= d.index < (1 << 31) for d in one)


def test_a_device_that_is_there_keeps_its_index_and_a_taken_one_is_not_used() -> None:
    config = web(Tunnel.GRE, FOUR, SIX)
    gre, ip6gre = devices(config)
    host = make_host(config)
    links = {
        **host.links,
        gre.name: Link(gre.name, 77),
        "other": Link("other", ip6gre.index),
    }
    ids = number_config(config, Ids())
    state = replace(make_state(config, host), links=links)
    again = plan_tunnels(state, ids).tunnels.devices
    assert [again[d.name].index for d in (gre, ip6gre)] == [77, ip6gre.index + 1]  # type: ignore[union-attr]


def test_vxlan_is_one_device_with_an_entry_for_each_backend() -> None:
    config = web(Tunnel.VXLAN, FOUR, BOTH, vips=("10.0.0.100", "2001:db8::100"))
    tunnels = plan(config).tunnels
    (name,) = tunnels.devices
    assert {(p.device, str(p.remote), p.mac) for p in tunnels.peers} == {
        (name, "10.0.1.1", "02:54:0a:00:01:01"),
        (name, "10.0.1.7", "02:54:0a:00:01:07"),
    }
    hops = {(str(n.hop), n.mac) for n in tunnels.neighbours}
    assert {hop for hop, _ in hops} == {
        "10.0.1.1",
        "fe80::5475:6c61:0:1",
        "10.0.1.7",
        "2001:db8::7",
    }
    assert len(hops) == 4


def test_the_own_end_is_the_one_that_backends_know() -> None:
    config = web(Tunnel.GRE, FOUR)
    known = replace(config, load_balancers=(("lb1", ip_address("10.1.0.2")),))
    assert [str(d.local) for d in devices(config)] == ["10.0.0.2"]
    assert [str(d.local) for d in devices(known)] == ["10.1.0.2"]


def test_macs_are_of_the_address() -> None:
    assert vxlan_mac(ip_address("192.0.2.255")) == "02:54:c0:00:02:ff"
    assert vxlan_mac(ip_address("2001:db8::1")) != vxlan_mac(ip_address("2001:db8::2"))


def test_overheads() -> None:
    """Headers of the outer IP, of UDP (8), GUE (4), GRE (4), VXLAN (8) and Ethernet (14)."""
    found = {(t, v): overhead(t, v) for t in Tunnel for v in (4, 6)}
    assert found == {
        (Tunnel.IPIP, 4): 20,
        (Tunnel.IPIP, 6): 40,
        (Tunnel.GRE, 4): 24,
        (Tunnel.GRE, 6): 44,
        (Tunnel.GUE, 4): 32,
        (Tunnel.GUE, 6): 52,
        (Tunnel.VXLAN, 4): 50,
        (Tunnel.VXLAN, 6): 70,
    }


def test_what_the_kernel_lacks_is_named_with_what_it_has() -> None:
    config = web(Tunnel.IPIP, FOUR)
    (problem,) = missing_tunnels(config, lambda kinds: {"sit", "ipip", "fou"} & set(kinds))
    assert problem.path == ("services", "web", "tunnel")
    assert "no ipip and sit" in problem.message
    assert problem.message.endswith("it can make: gre, vxlan")
    assert not missing_tunnels(config, lambda kinds: {"gre"} & set(kinds))
    assert not missing_tunnels(make_config(make_service(backends=[FOUR])), lambda kinds: set(kinds))
