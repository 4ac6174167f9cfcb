"""What a configuration of several balancers means for one of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.model.announce import announced_by
from tula.model.config import Config, PortRange, VirtualService
from tula.model.desired import Announce, DesiredVip, SharedWith
from tula.model.health import BackendName, BackendStatus, State
from tula.model.high_availability import Bgp, HighAvailability, SharedFlows, Vrrp
from tula.model.host import HostAddress, HostView
from tula.model.monitor import HealthPolicy
from tula.plan.high_availability import (
    own_balancer,
    plan_sharing,
    served,
    vips_by,
    vrrp_interface,
)
from tula.plan.routes import plan_routes, takes_own_address

VRRP = HighAvailability(vrrp=Vrrp(84))
BGP = HighAvailability(bgp=Bgp(65001, ((ip_address("10.0.0.1"), 65000),)))
BOTH = HighAvailability(vrrp=VRRP.vrrp, bgp=BGP.bgp)
VIP, OTHER = ip_address("10.0.0.100"), ip_address("10.0.0.101")
LB1, LB2 = ip_address("10.0.0.2"), ip_address("10.0.0.3")
B0 = make_backend(0)


def pair(settings: HighAvailability, *services: VirtualService) -> Config:
    """lb1, which is ``make_host``, and lb2."""
    return replace(
        make_config(*services or [make_service(backends=[B0])]),
        load_balancers=(("lb1", LB1), ("lb2", LB2)),
        high_availability=settings,
    )


def holding(host: HostView, *addresses: str) -> HostView:
    """The machine with addresses on eth0 that Tula has not put there."""
    more = (HostAddress("eth0", ip_interface(address)) for address in addresses)
    return replace(host, addresses=(*host.addresses, *more))


@pytest.mark.parametrize(
    ("settings", "announce", "way"),
    [
        (HighAvailability(), True, Announce.STATIC),
        (HighAvailability(), "eth1", Announce.STATIC),
        (HighAvailability(), False, Announce.EXTERNAL),
        (VRRP, True, Announce.VRRP),
        (VRRP, "eth1", Announce.VRRP),
        (VRRP, False, Announce.EXTERNAL),
        (BGP, True, Announce.BGP),
        (BGP, False, Announce.EXTERNAL),
        (BOTH, True, Announce.VRRP),
        (BOTH, "vrrp", Announce.VRRP),
        (BOTH, "bgp", Announce.BGP),
        (BOTH, "eth1", Announce.VRRP),
    ],
)
def test_who_announces_a_vip(
    settings: HighAvailability, announce: bool | str, way: Announce
) -> None:
    config = pair(settings, make_service(backends=[B0], announce=announce))
    assert announced_by(config, config.services[0]) is way
    assert vips_by(config, way) == {VIP}
    interface = "eth1" if announce == "eth1" else "eth0"
    on_interface = way in (Announce.STATIC, Announce.VRRP)
    (vip,) = plan_routes(config, make_host(config)).vips
    assert vip == DesiredVip(VIP, interface if on_interface else "", ("web",), way)


def test_a_vip_by_vrrp_stays_wanted_on_the_balancer_that_holds_it() -> None:
    config = pair(VRRP, make_service(backends=[B0], ports=[PortRange(22, 22)]))
    standby = make_host(config)
    active = holding(standby, f"{VIP}/32")
    assert plan_routes(config, active).vips == plan_routes(config, standby).vips
    assert not plan_routes(config, active).problems, "its SSH is no other on the active balancer"
    assert not takes_own_address(config, active)
    alone = replace(config, high_availability=HighAvailability())
    assert not plan_routes(alone, active, force=True).vips, "it is the machine's own"


def test_which_balancer_this_is() -> None:
    config = pair(VRRP)
    host = make_host(config)
    assert own_balancer(config, host) == ("lb1", LB1)
    other = replace(config, load_balancers=(("lb2", LB2), ("lb3", ip_address("10.0.0.4"))))
    assert own_balancer(other, host) is None
    by_vip = replace(config, load_balancers=(("lb2", LB2), ("lb3", VIP)))
    assert own_balancer(by_vip, holding(host, f"{VIP}/32")) is None, "it moves"


def test_where_adverts_are_sent() -> None:
    config = pair(VRRP)
    host = make_host(config)
    assert vrrp_interface(config, host) == "eth0"
    named = replace(config, high_availability=HighAvailability(vrrp=Vrrp(84, "eth1")))
    assert vrrp_interface(named, host) == "eth1"
    assert vrrp_interface(pair(BGP), host) == ""
    strangers = (("lb2", LB2), ("lb3", ip_address("10.0.0.4")))
    assert vrrp_interface(replace(named, load_balancers=strangers), host) == "", "not its matter"


def test_who_must_know_flows() -> None:
    config = pair(VRRP)
    host = make_host(config)
    assert plan_sharing(config, host) == SharedWith(LB1, (LB2,), 4790, near=frozenset({LB2}))
    every = replace(VRRP, flows=SharedFlows.ALL, port=5000)
    assert plan_sharing(pair(every), host) == SharedWith(
        LB1, (LB2,), 5000, all_flows=True, near=frozenset({LB2})
    )
    assert plan_sharing(pair(replace(VRRP, flows=SharedFlows.NONE)), host) is None
    assert plan_sharing(pair(HighAvailability()), host) is None
    assert plan_sharing(replace(config, load_balancers=(("lb1", LB1),)), host) is None
    off = replace(config, connections=replace(config.connections, enabled=False))
    assert plan_sharing(off, host) is None


def up(count: int, **others: BackendStatus) -> dict[BackendName, BackendStatus]:
    """The statuses of a service ``web``: so many up, and these."""
    found = {f"b{number}": BackendStatus(State.UP, 100, True) for number in range(count)}
    return {("web", name): status for name, status in (found | others).items()}


DOWN = BackendStatus(State.DOWN, 0, False)
PANIC = BackendStatus(State.DOWN, 100, True)
DRAINING = BackendStatus(State.DRAINING, 0, True)
UNKNOWN = BackendStatus(State.UNKNOWN, 100, True)


@pytest.mark.parametrize(
    ("needs", "statuses", "expected"),
    [
        (1, up(1), True),
        (1, up(0), False),
        (1, up(0, b0=UNKNOWN), True),
        (1, up(0, b0=DOWN, b1=DRAINING), False),
        (1, up(0, b0=PANIC, b1=PANIC), False),
        (2, up(1, b1=DRAINING, b2=DOWN), False),
        (2, up(2, b2=DOWN), True),
        (3, up(2, b2=UNKNOWN), True),
        (0, up(0), True),
        (0, up(0, b0=DOWN), True),
        (4, up(3), False),
    ],
)
def test_what_is_served_here(
    needs: int, statuses: dict[BackendName, BackendStatus], expected: bool
) -> None:
    backends = [make_backend(number) for number in range(3)]
    web = replace(make_service(backends=backends), policy=HealthPolicy(announce_while=needs))
    other = make_service("other", ["10.0.0.101"], backends=[B0])
    config = pair(VRRP, web, other)
    found = served(config, {**statuses, ("other", "b0"): BackendStatus(State.UP, 100, True)})
    assert found == {"web": expected, "other": True}


def test_a_machine_that_is_no_balancer() -> None:
    config = replace(pair(VRRP), load_balancers=(("lb2", LB2), ("lb3", ip_address("10.0.0.4"))))
    (problem,) = plan_routes(config, make_host(config)).problems
    assert (problem.dotted, problem.message) == (
        "load_balancers",
        "none of them is an address of this machine, which has 10.0.0.2, 2001:db8::2, 10.1.0.2, "
        "2001:db8:1::2; list this machine, or correct its address",
    )
    assert not plan_routes(
        replace(config, high_availability=HighAvailability()), make_host(config)
    ).problems


def test_a_machine_that_is_two_balancers() -> None:
    second = ("lb3", ip_address("10.1.0.2"))
    config = pair(VRRP)
    config = replace(config, load_balancers=(*config.load_balancers, second))
    (problem,) = plan_routes(config, make_host(config)).problems
    assert (problem.dotted, problem.message) == (
        "load_balancers.lb3",
        "lb1 and lb3 are addresses of this machine, which is one balancer; list it once",
    )


def test_adverts_on_an_interface_that_is_missing() -> None:
    config = pair(HighAvailability(vrrp=Vrrp(84, "eth9")))
    (problem,) = plan_routes(config, make_host(config)).problems
    assert problem.message == "no interface 'eth9' here; this machine has eth0, eth1"


def cautions(config: Config, host: HostView | None = None) -> list[tuple[str, str]]:
    found = plan_routes(config, host or make_host(config)).cautions
    return [(caution.id, caution.interface) for caution in found]


def test_where_packets_cannot_be_cloned() -> None:
    config = pair(VRRP)
    host = make_host(config)
    tunnel = replace(
        host, links={**host.links, "eth0": replace(host.links["eth0"], ethernet=False)}
    )
    assert cautions(config) == []
    assert cautions(config, tunnel) == [("flows-not-shared", "eth0")]
    assert cautions(pair(replace(VRRP, flows=SharedFlows.NONE)), tunnel) == []


def test_a_router_on_an_interface_that_is_not_listed() -> None:
    assert cautions(pair(BGP)) == []
    other = Bgp(65001, ((ip_address("10.1.0.1"), 65000), (ip_address("192.0.2.1"), 65000)))
    config = pair(HighAvailability(bgp=other))
    assert cautions(config) == [("interface-not-listed", "eth1")]
    assert cautions(replace(config, interfaces=("eth0", "eth1"))) == []


def test_the_vip_of_the_active_balancer_has_come_by_no_other_interface() -> None:
    """keepalived's own interface, for example, if it has one."""
    config = pair(VRRP, make_service(backends=[B0], announce="vrrp"))
    vip = HostAddress("eth1", ip_interface(f"{VIP}/32"), engine=True)
    host = make_host(config)
    assert cautions(config, replace(host, addresses=(*host.addresses, vip))) == []
