"""What the machine itself tells: figures, roles, routes, interfaces, versions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.balancer import (
    check_conntrack,
    check_flow_tables,
    check_health_checks,
    check_interfaces,
    check_kernel_state,
    check_load_balancers,
    check_neighbour_tables,
    check_reverse_path,
    check_routes,
    check_saved_rulesets,
    check_source_addresses,
    check_support,
)
from tula.doctor.observation import Observation, Usage, parse_version
from tula.doctor.requests import Responses
from tula.doctor.run import Roles, check_balancer, roles_of
from tula.kernel.fake import FakeSysctls
from tula.model.config import Tunnel
from tula.model.finding import Severity
from tula.model.host import HostAddress, LinkState, Route
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.model.problem import Problem
from tula.model.stats import TableUse
from tula.plan.probe_sysctls import LOOSE, OFF, InterfaceRequirement, setting
from tula.plan.routes import plan_routes

CONFIG = make_config(make_service(backends=[make_backend(0, dual=False)]))
HOST = make_host(CONFIG)
NOTHING = Responses()


def observed(**keys: object) -> Observation:
    return replace(Observation(CONFIG, HOST, plan_routes(CONFIG, HOST)), **keys)  # type: ignore[arg-type]


def test_saved_rulesets() -> None:
    made = observed(saved_tables={"/etc/nftables.conf": ["inet tula_guard", "netdev tula"]})
    (found,) = check_saved_rulesets(made, NOTHING)
    assert (found.id, found.severity, found.commands) == ("saved-ruleset", Severity.WARNING, ())
    assert found.evidence.startswith(
        "/etc/nftables.conf contains table inet tula_guard and table netdev tula, "
    )
    assert not list(check_saved_rulesets(observed(), NOTHING))


def test_tables() -> None:
    for entries, full, wanted in [
        (0, 0, []), (89, 5, []), (90, 0, [True]), (None, 0, []), (None, 1, [False]),
    ]:  # fmt: skip
        made = observed(flow_tables=[TableUse("tcp4", entries, 100)], table_full=full)
        assert [f.certain for f in check_flow_tables(made, NOTHING)] == wanted


@pytest.mark.parametrize(
    ("used", "wanted"),
    [(10, []), (461, [Severity.NOTE]), (930, [Severity.WARNING])],
)
def test_neighbours(used: int, wanted: list[Severity]) -> None:
    made = observed(neighbours={4: Usage(used, 1024, 512)})
    found = list(check_neighbour_tables(made, NOTHING))
    assert [f.severity for f in found] == wanted
    assert all("gc_thresh3=4096" in f.commands[0] for f in found)


def test_conntrack() -> None:
    assert not list(check_conntrack(observed(conntrack=Usage(10, 100)), NOTHING))
    (found,) = check_conntrack(observed(conntrack=Usage(95, 100)), NOTHING)
    assert found.commands == ("sysctl -w net.netfilter.nf_conntrack_max=400",)


def test_what_the_kernel_lacks() -> None:
    problem = Problem(("services", "web", "tunnel"), "this kernel has no gre, …")
    for keys, wanted in [
        ({}, []),
        ({"unsupported": [problem]}, ["web: this kernel has no gre, …"]),
        ({"nft": None}, ["nftables 1.0.6 or newer is needed; this machine has none"]),
        ({"nft": (1, 0, 2)}, ["nftables 1.0.6 or newer is needed; this machine has 1.0.2"]),
    ]:
        assert [f.evidence for f in check_support(observed(**keys), NOTHING)] == wanted
    assert parse_version("nftables v1.0.6 (Lester Gooch #5)\n") == (1, 0, 6)
    assert parse_version("none") is None


def test_interfaces() -> None:
    for state, wanted in [
        (LinkState(), []),
        (LinkState(up=False), [("interface-down", ("ip link set eth0 up",))]),
        (LinkState(carrier=False), [("interface-down", ())]),
    ]:
        found = check_interfaces(observed(links={"eth0": state}), NOTHING)
        assert [(f.id, f.commands) for f in found] == wanted
    config = replace(CONFIG, interfaces=("eth7",))
    (lost,) = check_interfaces(Observation(config, HOST), NOTHING)
    assert (lost.id, lost.where) == ("interface-missing", "eth7")


@pytest.mark.parametrize(
    ("route", "near", "far"),
    [
        (Route("unicast", "eth0"), [], []),
        (Route("unicast", "eth0", ip_address("10.0.0.1")), ["off-link"], []),
        (Route("none"), ["no-route"], ["no-route"]),
    ],
)
def test_routes(route: Route, near: list[str], far: list[str]) -> None:
    host = replace(HOST, routes={ip_address("10.0.0.10"): route})
    tunnelled = make_config(make_service(backends=[make_backend(0)], tunnel=Tunnel.GRE))
    assert [f.id for f in check_routes(Observation(CONFIG, host), NOTHING)] == near
    assert [f.id for f in check_routes(Observation(tunnelled, host), NOTHING)] == far


def test_balancers() -> None:
    for text, wanted in [("10.0.0.2", []), ("10.0.0.3", [Severity.WARNING])]:
        config = replace(CONFIG, load_balancers=(("lb1", ip_address(text)),))
        found = check_load_balancers(Observation(config, HOST), NOTHING)
        assert [f.severity for f in found] == wanted


def test_the_kernel_against_the_document() -> None:
    vip = HostAddress("eth0", ip_interface("10.0.0.100/32"), ours=True)
    held = replace(HOST, addresses=(*HOST.addresses, vip))
    for keys, wanted in [
        ({"host": held}, []),
        ({}, ["vip-not-held"]),
        ({"has_table": False, "pending": ["add table netdev tula"]}, ["not-applied"]),
        ({"host": held, "pending": ["change chain a"]}, ["drift"]),
        ({"host": held, "pending": ["change chain a"], "applied": False}, ["not-applied"]),
        ({"host": held, "pending": None}, []),
    ]:
        assert [f.id for f in check_kernel_state(observed(**keys), NOTHING)] == wanted


def test_roles() -> None:
    backend = replace(HOST, addresses=(HostAddress("eth0", ip_interface("10.0.0.10/16")),))
    stranger = replace(HOST, links={}, addresses=())
    for made, wanted in [
        (observed(), Roles(True)),
        (observed(has_table=False), Roles(True)),
        (observed(has_table=False, host=backend), Roles(False, ("b0",))),
        (observed(host=backend), Roles(True, ("b0",))),
        (observed(has_table=False, host=stranger), Roles(False)),
    ]:
        assert roles_of(made) == wanted


def test_a_machine_that_was_asked_nothing_has_no_fault() -> None:
    vip = HostAddress("eth0", ip_interface("10.0.0.100/32"), ours=True)
    held = replace(HOST, addresses=(*HOST.addresses, vip), links={})
    assert check_balancer(observed(host=held, links={}), NOTHING, ()) == [
        *check_interfaces(observed(host=held), NOTHING),
        *check_health_checks(observed(), NOTHING),
    ]


def test_services_that_nothing_checks_are_one_note() -> None:
    several = [make_service(f"s{n}", backends=[make_backend(0)]) for n in range(48)]
    checked = replace(several[0], health=(HealthMonitor(TcpProbe()),))
    empty = replace(several[1], backends=())
    (found,) = check_health_checks(observed(config=make_config(*several[2:])), NOTHING)
    assert (found.id, found.severity, found.where) == ("no-health-checks", Severity.NOTE, "here")
    assert found.evidence.startswith("s2, s3, s4, s5, s6 and 41 more have no health checks: ")
    assert not list(check_health_checks(observed(config=make_config(checked, empty)), NOTHING))


def test_figures_that_are_not_there() -> None:
    from tula.doctor.observation import read_conntrack

    sysctls = FakeSysctls()
    assert read_conntrack(sysctls) is None


def test_reverse_path_filters_matter_to_a_daemon() -> None:
    needs = {"eth0": InterfaceRequirement(accept_local=True, rp_filters=frozenset({OFF, LOOSE}))}
    strict = {setting("all", "rp_filter"): "0", setting("eth0", "rp_filter"): "1"}
    loose = {**strict, setting("eth0", "rp_filter"): "2", setting("eth0", "accept_local"): "1"}
    for keys, wanted in [
        ({"has_daemon": False, "sysctls": strict}, []),
        ({"has_daemon": True, "sysctls": loose}, []),
        ({"has_daemon": True, "sysctls": strict}, ["rp-filter"]),
    ]:
        found = list(check_reverse_path(observed(probe_needs=needs, **keys), NOTHING))
        assert [f.id for f in found] == wanted
        assert all("sysctl -w net/ipv4/conf/eth0/rp_filter=2" in f.commands for f in found)


def test_without_an_address_to_ask_from() -> None:
    lonely = replace(HOST, addresses=(HostAddress("eth0", ip_interface("10.0.0.100/16")),))
    assert not list(check_source_addresses(observed(), NOTHING))
    (found,) = check_source_addresses(observed(host=lonely), NOTHING)
    assert (found.id, found.severity) == ("no-source-address", Severity.NOTE)
