"""Which probes there are, from where, by which way."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

from support.builders import (
    make_backend,
    make_config,
    make_host,
    make_service,
)
from tula.dataplane.nft.ids import PROBE_MARK
from tula.model.config import Config, PortRange, Protocol, Tunnel
from tula.model.health import ProbeSocket, ProbeTarget
from tula.model.host import HostAddress, HostView
from tula.model.monitor import HealthMonitor, HttpProbe, IcmpProbe, ScriptProbe, TcpProbe
from tula.plan.probes import ProbePlan, plan_probes, probe_destinations, probed_neighbours
from tula.plan.routes import plan_routes

TCP, PING = HealthMonitor(TcpProbe()), HealthMonitor(IcmpProbe())
VIP4, VIP6 = ip_address("10.0.0.100"), ip_address("2001:db8::100")
OWN4, OWN6 = ip_address("10.0.0.2"), ip_address("2001:db8::2")
BOTH = ("10.0.0.100", "2001:db8::100")


def socket_of(service: str, backend: str) -> ProbeSocket:
    """As nftables numbers them: b0 is 10.0.0.10."""
    assert service
    number = int(backend.rpartition(".")[2] or 0) if "." in backend else 0
    return ProbeSocket(PROBE_MARK, 0x10000 + number - 9)


def plan(config: Config, host: HostView | None = None, *, force: bool = False) -> ProbePlan:
    host = host or make_host(config)
    routes = plan_routes(config, host, force=force)
    assert not routes.problems
    return plan_probes(config, host, routes, socket_of)


def port_of(monitor: HealthMonitor, *ports: PortRange) -> int | None:
    service = make_service(ports=ports, backends=[make_backend(0)], health=[monitor])
    probes = plan(make_config(service)).probes
    return probes[0].target.port if probes else None


def test_every_backend_is_asked_at_every_vip_from_an_address_that_is_no_vip() -> None:
    backends = [make_backend(0), make_backend(1, weight=0)]
    found = plan(make_config(make_service(vips=BOTH, backends=backends, health=[TCP])))
    assert found.versions == (4, 6)
    assert [(p.service, p.backend, p.position) for p in found.probes] == [
        *(("web", "b0", 0), ("web", "b0", 0), ("web", "b1", 0), ("web", "b1", 0))
    ]
    assert [p.target for p in found.probes] == [
        ProbeTarget(VIP4, 80, OWN4, PROBE_MARK, 0x10001),
        ProbeTarget(VIP6, 80, OWN6, PROBE_MARK, 0x10001),
        ProbeTarget(VIP4, 80, OWN4, PROBE_MARK, 0x10002),
        ProbeTarget(VIP6, 80, OWN6, PROBE_MARK, 0x10002),
    ]
    assert [p.direct for p in found.probes[:2]] == [
        ProbeTarget(ip_address("10.0.0.10"), 80),
        ProbeTarget(ip_address("2001:db8::a"), 80),
    ]


def test_a_direct_check_asks_the_addresses_of_the_vips_versions() -> None:
    monitor = HealthMonitor(TcpProbe(port=8080), via="direct")
    service = make_service(backends=[make_backend(0)], health=[TCP, monitor])
    found = plan(make_config(service))
    assert [(p.position, p.target.address) for p in found.probes] == [
        (0, VIP4),
        (1, ip_address("10.0.0.10")),
    ]
    assert found.probes[1].target == ProbeTarget(ip_address("10.0.0.10"), 8080)
    assert found.probes[1].direct is None


def test_a_direct_check_needs_nothing_of_the_machine() -> None:
    service = make_service(backends=[make_backend(0)], health=[replace(TCP, via="direct")])
    found = plan(make_config(service))
    assert (found.versions, found.needs, found.problems) == ((), {}, ())
    assert probe_destinations(make_config(service)) == set()


def test_ports() -> None:
    http, script = HealthMonitor(HttpProbe()), HealthMonitor(ScriptProbe(command=("/bin/check",)))
    assert port_of(TCP, PortRange(1000, 2000), PortRange(3000, 3000)) == 3000
    assert port_of(TCP, PortRange(1000, 2000)) == 1000
    assert port_of(http, PortRange(1, 2000)) == 80, "the usual one where a range holds it"
    assert port_of(http) == 80
    assert port_of(PING, PortRange(80, 80)) == 0
    assert port_of(script, PortRange(80, 80)) == 80
    assert port_of(script) == 0


def test_any_port_is_no_port_to_check() -> None:
    service = make_service(ports=[], backends=[make_backend(0)], health=[TCP])
    found = plan(make_config(service))
    assert found.probes == ()
    assert found.problems == (
        "web: a check of type tcp needs a port, and the service takes any; "
        "give via: direct and port",
    )


def test_a_tunnels_backend_without_the_vips_version_is_asked_from_any_own_address() -> None:
    backend = make_backend(0, dual=False)
    service = make_service(
        vips=BOTH, backends=[backend], tunnel=Tunnel.GRE, health=[PING], announce=False
    )
    found = plan(make_config(service))
    assert [p.target.source for p in found.probes] == [OWN4, OWN6]
    # The address that it has tells whether it serves, whatever the VIP's version.
    assert {p.direct.address for p in found.probes if p.direct} == {backend.addresses[0]}
    assert all(p.direct for p in found.probes)
    assert found.needs is not None
    assert set(found.needs) == {"eth0"}


def test_an_own_address_that_is_a_vip_is_never_the_source() -> None:
    service = make_service(vips=["10.0.0.2"], backends=[make_backend(0)], health=[PING])
    config = make_config(replace(service, protocols=(Protocol.UDP,)))
    found = plan(config, force=True)
    assert [p.target.source for p in found.probes] == [ip_address("10.1.0.2")]
    assert found.needs is not None
    assert set(found.needs) == {"eth0", "eth1"}, "answers come to the source, or straight"


def test_a_machine_without_an_address_of_its_own_is_told() -> None:
    config = make_config(make_service(vips=BOTH, backends=[make_backend(0)], health=[TCP, PING]))
    host = make_host(config)
    held = tuple(a for a in host.addresses if a.address.version == 4)
    link_local = HostAddress("eth0", ip_interface("fe80::1/64"))
    routes = {to: replace(route, source=None) for to, route in host.routes.items()}
    bare = replace(host, addresses=(*held, link_local), routes=routes)
    routes = plan_routes(config, make_host(config))
    found = plan_probes(config, bare, routes, socket_of)
    assert {p.target.address for p in found.probes} == {VIP4}
    assert found.problems == (
        "web: no address of its own of IPv6 to probe from; give one to this machine, "
        "beside the VIP 2001:db8::100",
    )


def test_the_neighbours_to_know_before_are_those_of_checked_l2_services() -> None:
    backends = [make_backend(0), make_backend(1, dual=False)]
    config = make_config(
        make_service("web", backends=backends, health=[TCP]),
        make_service("plain", ["10.0.0.101"], backends=[make_backend(2)]),
        make_service(
            "far", ["10.0.0.102"], backends=[make_backend(3)], health=[TCP], tunnel=Tunnel.IPIP
        ),
    )
    host = make_host(config, second=["10.0.0.11"])
    found = probed_neighbours(config, host, plan_routes(config, host))
    assert found == {(2, ip_address("10.0.0.10")), (3, ip_address("10.0.0.11"))}


def test_what_this_machine_cannot_ask_says_so() -> None:
    backends = [make_backend(0), make_backend(1)]
    monitors = [TCP, HealthMonitor(TcpProbe(), via="direct")]
    config = make_config(make_service(vips=BOTH, backends=backends, health=monitors))
    host = make_host(config)
    gone = next(a for a in backends[0].addresses if a.version == 6)
    host = replace(host, routes={a: r for a, r in host.routes.items() if a != gone})
    found = plan_probes(config, host, plan_routes(config, host), socket_of)
    held = {(p.backend, p.position, p.target.address.version, p.obstacle) for p in found.probes}
    assert {entry for entry in held if entry[3]} == {
        ("b0", 0, 6, f"no route to {gone}"),
        ("b0", 1, 6, f"no route to {gone}"),
    }


def test_without_a_carrier_nobody_is_asked_if_there_is_no_other_way() -> None:
    config = make_config(make_service(backends=[make_backend(0), make_backend(1)], health=[TCP]))
    host = make_host(config)
    (name,) = {hop.interface for hop in plan_routes(config, host).hops.values()}

    def obstacles(host: HostView) -> list[str]:
        return [probe.obstacle for probe in plan(config, host).probes]

    without = {**host.links, name: replace(host.links[name], carrier=False)}
    assert obstacles(host) == ["", ""]
    assert obstacles(replace(host, links=without)) == [f"{name} has no carrier"] * 2
    # Where one backend has another way, those behind the dead link are down: that one serves.
    other = config.services[0].backends[0].addresses[0]
    links = {**without, "eth9": replace(host.links[name], name="eth9", index=99)}
    routes = {**host.routes, other: replace(host.routes[other], interface="eth9")}
    assert obstacles(replace(host, links=links, routes=routes)) == ["", ""]
