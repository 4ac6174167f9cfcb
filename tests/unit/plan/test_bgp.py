"""With which routers, from which addresses, for which families."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from support.builders import make_backend, make_config, make_host, make_service
from tula.model.config import Config
from tula.model.high_availability import Bgp, HighAvailability
from tula.model.host import HostAddress, HostView, Route
from tula.plan.bgp import BgpPlan, plan_bgp


def plan(
    *routers: str,
    addresses: tuple[str, ...] = ("eth0 10.0.0.2/16", "eth0 2001:db8::2/64"),
    balancer: str = "10.0.0.2",
    vips: tuple[str, ...] = ("10.77.0.1", "fd77::1"),
    sources: tuple[tuple[str, str], ...] = (),
) -> BgpPlan:
    service = make_service(vips=vips, backends=[make_backend(0)])
    config = make_config(service)
    settings = HighAvailability(
        bgp=Bgp(65001, tuple((ip_address(router), 65000) for router in routers))
    )
    balancers = (("lb1", ip_address(balancer)), ("lb2", ip_address("10.0.0.3")))
    config = replace(config, high_availability=settings, load_balancers=balancers)
    return plan_bgp(config, machine(config, addresses, sources))


def machine(
    config: Config, addresses: tuple[str, ...], sources: tuple[tuple[str, str], ...]
) -> HostView:
    held = tuple(
        HostAddress(words[0], ip_interface(words[1]))
        for words in (address.split() for address in addresses)
    )
    routes = {
        ip_address(to): Route("unicast", "eth0", source=ip_address(source))
        for to, source in sources
    }
    return replace(make_host(config), addresses=held, routes=routes)


def sessions(found: BgpPlan) -> list[tuple[str, str, str, list[str]]]:
    assert found.desired is not None
    return [
        (
            str(each.router),
            str(each.local),
            each.interface,
            [f"{version} {hop}" for version, hop in each.next_hops],
        )
        for each in found.desired.sessions
    ]


def test_each_family_over_its_own_routers() -> None:
    found = plan("10.0.0.1", "2001:db8::1")
    assert sessions(found) == [
        ("10.0.0.1", "10.0.0.2", "eth0", ["4 None"]),
        ("2001:db8::1", "2001:db8::2", "eth0", ["6 None"]),
    ]
    assert found.problems == ()
    assert found.desired is not None
    assert str(found.desired.router_id) == "10.0.0.2"


def test_routers_of_one_family_carry_the_other() -> None:
    assert sessions(plan("10.0.0.1")) == [
        ("10.0.0.1", "10.0.0.2", "eth0", ["4 None", "6 2001:db8::2"])
    ]
    assert sessions(plan("2001:db8::1")) == [
        ("2001:db8::1", "2001:db8::2", "eth0", ["6 None", "4 10.0.0.2"])
    ]


def test_without_ipv4_its_next_hop_is_of_ipv6() -> None:
    found = plan("2001:db8::1", addresses=("eth0 2001:db8::2/64",), balancer="2001:db8::2")
    assert sessions(found) == [("2001:db8::1", "2001:db8::2", "eth0", ["6 None", "4 None"])]
    assert found.desired is not None
    assert str(found.desired.router_id).startswith("10.")


def test_without_ipv6_its_vips_are_nobodys() -> None:
    found = plan("10.0.0.1", addresses=("eth0 10.0.0.2/16",))
    (problem,) = found.problems
    assert problem.path == ("services", "web", "vip")
    assert "no router would hear of fd77::1" in problem.message
    assert plan("10.0.0.1", addresses=("eth0 10.0.0.2/16",), vips=("10.77.0.1",)).problems == ()


def test_a_router_behind_another_one() -> None:
    assert sessions(plan("192.0.2.1"))[0][:3] == ("192.0.2.1", "10.0.0.2", "")
    far = plan("2001:db8:9::1", sources=(("2001:db8:9::1", "2001:db8::2"),))
    assert sessions(far)[0][:3] == ("2001:db8:9::1", "2001:db8::2", "")


def test_the_narrowest_subnet_and_never_a_vip() -> None:
    addresses = ("eth0 10.0.0.2/8", "eth1 10.1.0.7/24", "eth1 10.77.0.1/32")
    found = plan("10.1.0.1", addresses=addresses, vips=("10.77.0.1", "10.1.0.7"))
    assert sessions(found)[0][1:3] == ("10.0.0.2", "eth0")
    assert sessions(plan("10.1.0.1", addresses=addresses))[0][1:3] == ("10.1.0.7", "eth1")


def test_what_cannot_be_is_told() -> None:
    found = plan("2001:db8:9::1", "fe80::1", "10.0.0.2", "10.0.0.1", vips=("10.77.0.1",))
    assert len(sessions(found)) == 1
    assert [str(problem.path[-1]) for problem in found.problems] == [
        "2001:db8:9::1",
        "fe80::1",
        "10.0.0.2",
    ]
    assert plan("fe80::1").desired is None
