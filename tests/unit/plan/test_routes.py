"""What does not fit the machine is found before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.model.config import Backend, Config, PortRange, Protocol
from tula.model.host import HostAddress, HostView, OwnedAddress, Route
from tula.plan.routes import Routes, plan_routes

B0 = make_backend(0)
CONFIG = make_config(make_service(backends=[B0]))
ADDRESS = ip_address("10.0.0.10")


def with_route(route: Route) -> HostView:
    return replace(make_host(CONFIG), routes={ADDRESS: route})


def messages(routes: Routes) -> list[str]:
    return [f"{problem.dotted}: {problem.message}" for problem in routes.problems]


def test_a_machine_that_fits_has_no_problems() -> None:
    routes = plan_routes(CONFIG, make_host(CONFIG))
    assert not routes.problems
    assert routes.hops[ADDRESS].interface == "eth0"
    assert [(v.address, v.interface) for v in routes.held] == [(ip_address("10.0.0.100"), "eth0")]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (Route("unicast", "eth0", ip_address("10.0.0.1")), ["not on-link", "l3", "10.0.0.1"]),
        (Route("none"), ["no route", "l3"]),
    ],
)
def test_a_backend_out_of_reach(route: Route, words: list[str]) -> None:
    (message,) = messages(plan_routes(CONFIG, with_route(route)))
    assert (
        message.startswith("services.web.backends.b0.address: 10.0.0.10") or "10.0.0.10" in message
    )
    assert all(word in message for word in words)


def test_a_backend_that_is_this_machine() -> None:
    routes = plan_routes(CONFIG, with_route(Route("local", "lo")))
    assert not routes.problems
    assert [routes.serves_here(backend) for backend in CONFIG.services[0].backends] == [True]
    assert ADDRESS not in routes.hops


def test_the_addresses_of_a_backend_are_of_one_machine() -> None:
    own, other = ip_address("10.0.0.2"), ip_address("2001:db8::9")
    backend = Backend("both", (own, other))
    config = make_config(make_service("web", ["10.0.0.100", "2001:db8::100"], backends=[backend]))
    (message,) = messages(plan_routes(config, make_host(config)))
    assert "10.0.0.2 is an address of this machine, and 2001:db8::9 is not" in message


def test_only_the_addresses_that_a_vip_needs_are_asked_for() -> None:
    """The backend's IPv6 address has no route here, and no VIP is IPv6."""
    assert not plan_routes(CONFIG, with_route(Route("unicast", "eth0"))).problems


def test_a_backend_of_many_services_is_one_problem() -> None:
    config = make_config(
        *(make_service(f"s{n}", [f"10.0.0.{100 + n}"], backends=[B0]) for n in range(5))
    )
    host = replace(make_host(config), routes={})
    assert len(plan_routes(config, host).problems) == 1


def test_an_interface_that_is_not_there() -> None:
    config = make_config(make_service(backends=[B0]), interfaces=["eth0", "eth9"])
    (message,) = messages(plan_routes(config, make_host(config)))
    assert message == "interfaces[1]: no interface 'eth9' here; this machine has eth0, eth1"


def test_the_narrowest_subnet_takes_the_vip() -> None:
    config = make_config(
        make_service(vips=["10.1.0.100"], backends=[B0]), interfaces=["eth0", "eth1"]
    )
    wide = HostAddress("eth0", ip_interface("10.0.0.3/8"))
    host = make_host(config)
    host = replace(host, addresses=(wide, *host.addresses))
    assert [v.interface for v in plan_routes(config, host).held] == ["eth1"]


def test_a_vip_outside_every_subnet() -> None:
    config = make_config(make_service(vips=["192.0.2.1"], backends=[B0]))
    (message,) = messages(plan_routes(config, make_host(config)))
    assert message.startswith("services.web.vip: ")
    assert "announce: false" in message


@pytest.mark.parametrize(
    ("announce", "owned"),
    [(False, []), ("eth1", [OwnedAddress(ip_address("192.0.2.1"), "eth1")])],
)
def test_a_vip_that_is_routed_or_named(announce: bool | str, owned: list[OwnedAddress]) -> None:
    config = make_config(make_service(vips=["192.0.2.1"], backends=[B0], announce=announce))
    routes = plan_routes(config, make_host(config))
    assert (routes.problems, [OwnedAddress(v.address, v.interface) for v in routes.held]) == (
        [],
        owned,
    )


def test_a_vip_announced_on_an_interface_that_is_not_there() -> None:
    config = make_config(make_service(backends=[B0], announce="eth7"))
    (message,) = messages(plan_routes(config, make_host(config)))
    assert message.startswith("services.web.announce: no interface 'eth7' here")


def test_two_services_that_want_one_vip_in_two_places() -> None:
    config = make_config(
        make_service("web", backends=[B0], announce="eth0"),
        make_service("api", ports=[PortRange(81, 81)], backends=[B0], announce="eth1"),
    )
    (message,) = messages(plan_routes(config, make_host(config)))
    assert "another service announces 10.0.0.100 on eth0" in message


def own_vip(config: Config, *, ours: bool) -> HostView:
    host = make_host(config)
    held = HostAddress("eth0", ip_interface("10.0.0.100/16"), ours=ours)
    return replace(host, addresses=(*host.addresses, held))


def test_a_vip_that_was_there_before_is_used_and_not_owned() -> None:
    assert plan_routes(CONFIG, own_vip(CONFIG, ours=False)).held == []
    assert len(plan_routes(CONFIG, own_vip(CONFIG, ours=True)).held) == 1


@pytest.mark.parametrize(
    ("ports", "protocol", "refused"),
    [
        ([PortRange(22, 22)], Protocol.TCP, True),
        ([PortRange(20, 30)], Protocol.TCP, True),
        ([PortRange(2222, 2222)], Protocol.TCP, True),
        ([], Protocol.TCP, True),
        ([PortRange(80, 80)], Protocol.TCP, False),
        ([], Protocol.UDP, False),
    ],
)
def test_the_machines_own_ssh(ports: list[PortRange], protocol: Protocol, refused: bool) -> None:
    config = make_config(make_service(ports=ports, protocols=[protocol], backends=[B0]))
    host = replace(own_vip(config, ours=False), ssh_ports=frozenset({22, 2222}))
    found = messages(plan_routes(config, host))
    assert bool(found) is refused
    assert all("--force" in message for message in found)
    assert not plan_routes(config, host, force=True).problems
    assert not plan_routes(config, own_vip(config, ours=True)).problems
    # Held by VRRP, it is here at one moment and gone the next: the answer is the same.
    routed = make_config(
        make_service(ports=ports, protocols=[protocol], backends=[B0], announce=False)
    )
    away = replace(make_host(routed), ssh_ports=frozenset({22, 2222}))
    for each in (away, host):
        found = messages(plan_routes(routed, each))
        assert bool(found) is refused
        assert all("--force" in message for message in found)
        assert not plan_routes(routed, each, force=True).problems
