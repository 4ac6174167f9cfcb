"""What the machine itself tells: figures, roles, routes, interfaces, versions."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.document import (
    judge_balancer,
    judge_difference,
    judge_interfaces,
    judge_kernel,
    judge_reach,
    judge_sources,
)
from tula.doctor.fullness import judge_conntrack, judge_neighbours, judge_tables
from tula.doctor.machine import Usage, parse_version
from tula.doctor.reverse import judge_reverse
from tula.doctor.roles import Roles, roles_of
from tula.doctor.run import judge_balancer_side
from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.engine.reader import TableUse
from tula.kernel.fake import FakeSysctls
from tula.model.config import Tunnel
from tula.model.finding import Severity
from tula.model.host import HostAddress, LinkState, Route
from tula.model.problem import Problem
from tula.plan.probe_sysctls import LOOSE, OFF, Need, setting
from tula.plan.reach import plan_reach

CONFIG = make_config(make_service(backends=[make_backend(0, dual=False)]))
HOST = make_host(CONFIG)
NOTHING = Answers()


def scene(**keys: object) -> Scene:
    return replace(Scene(CONFIG, HOST, plan_reach(CONFIG, HOST)), **keys)  # type: ignore[arg-type]


def test_tables() -> None:
    for entries, full, wanted in [
        (0, 0, []), (89, 5, []), (90, 0, [True]), (None, 0, []), (None, 1, [False]),
    ]:  # fmt: skip
        made = scene(tables=[TableUse("tcp4", entries, 100)], full=full)
        assert [f.certain for f in judge_tables(made, NOTHING)] == wanted


@pytest.mark.parametrize(
    ("used", "wanted"),
    [(10, []), (461, [Severity.NOTE]), (930, [Severity.WARNING])],
)
def test_neighbours(used: int, wanted: list[Severity]) -> None:
    made = scene(neighbours={4: Usage(used, 1024, 512)})
    found = list(judge_neighbours(made, NOTHING))
    assert [f.severity for f in found] == wanted
    assert all("gc_thresh3=4096" in f.commands[0] for f in found)


def test_conntrack() -> None:
    assert not list(judge_conntrack(scene(conntrack=Usage(10, 100)), NOTHING))
    (found,) = judge_conntrack(scene(conntrack=Usage(95, 100)), NOTHING)
    assert found.commands == ("sysctl -w net.netfilter.nf_conntrack_max=400",)


def test_what_the_kernel_lacks() -> None:
    problem = Problem(("services", "web", "tunnel"), "this kernel has no gre, …")
    for keys, wanted in [
        ({}, []),
        ({"lacking": [problem]}, ["web: this kernel has no gre, …"]),
        ({"nft": None}, ["nftables 1.0.6 or newer is needed; this machine has none"]),
        ({"nft": (1, 0, 2)}, ["nftables 1.0.6 or newer is needed; this machine has 1.0.2"]),
    ]:
        assert [f.evidence for f in judge_kernel(scene(**keys), NOTHING)] == wanted
    assert parse_version("nftables v1.0.6 (Lester Gooch #5)\n") == (1, 0, 6)
    assert parse_version("none") is None


def test_interfaces() -> None:
    for state, wanted in [
        (LinkState(), []),
        (LinkState(up=False), [("interface-down", ("ip link set eth0 up",))]),
        (LinkState(carrier=False), [("interface-down", ())]),
    ]:
        found = judge_interfaces(scene(links={"eth0": state}), NOTHING)
        assert [(f.fault, f.commands) for f in found] == wanted
    config = replace(CONFIG, interfaces=("eth7",))
    (lost,) = judge_interfaces(Scene(config, HOST), NOTHING)
    assert (lost.fault, lost.where) == ("interface-missing", "eth7")


@pytest.mark.parametrize(
    ("route", "near", "far"),
    [
        (Route("unicast", "eth0"), [], []),
        (Route("unicast", "eth0", ip_address("10.0.0.1")), ["off-link"], []),
        (Route("none"), ["no-route"], ["no-route"]),
        (Route("local", "lo"), ["own-backend"], ["own-backend"]),
    ],
)
def test_routes(route: Route, near: list[str], far: list[str]) -> None:
    host = replace(HOST, routes={ip_address("10.0.0.10"): route})
    tunnelled = make_config(make_service(backends=[make_backend(0)], tunnel=Tunnel.GRE))
    assert [f.fault for f in judge_reach(Scene(CONFIG, host), NOTHING)] == near
    assert [f.fault for f in judge_reach(Scene(tunnelled, host), NOTHING)] == far


def test_balancers() -> None:
    for text, wanted in [("10.0.0.2", []), ("10.0.0.3", [Severity.WARNING])]:
        config = replace(CONFIG, load_balancers=(("lb1", ip_address(text)),))
        found = judge_balancer(Scene(config, HOST), NOTHING)
        assert [f.severity for f in found] == wanted


def test_the_kernel_against_the_document() -> None:
    vip = HostAddress("eth0", ip_interface("10.0.0.100/32"), ours=True)
    held = replace(HOST, addresses=(*HOST.addresses, vip))
    for keys, wanted in [
        ({"host": held}, []),
        ({}, ["vip-not-held"]),
        ({"table": False, "difference": ["add table netdev tula"]}, ["not-applied"]),
        ({"host": held, "difference": ["change chain a"]}, ["drift"]),
        ({"host": held, "difference": ["change chain a"], "same": False}, ["not-applied"]),
        ({"host": held, "difference": None}, []),
    ]:
        assert [f.fault for f in judge_difference(scene(**keys), NOTHING)] == wanted


def test_roles() -> None:
    backend = replace(HOST, addresses=(HostAddress("eth0", ip_interface("10.0.0.10/16")),))
    stranger = replace(HOST, links={}, addresses=())
    for made, wanted in [
        (scene(), Roles(True)),
        (scene(table=False), Roles(True)),
        (scene(table=False, host=backend), Roles(False, ("b0",))),
        (scene(host=backend), Roles(True, ("b0",))),
        (scene(table=False, host=stranger), Roles(False)),
    ]:
        assert roles_of(made) == wanted


def test_a_machine_that_was_asked_nothing_has_no_fault() -> None:
    vip = HostAddress("eth0", ip_interface("10.0.0.100/32"), ours=True)
    held = replace(HOST, addresses=(*HOST.addresses, vip), links={})
    assert judge_balancer_side(scene(host=held, links={}), NOTHING, ()) == [
        *judge_interfaces(scene(host=held), NOTHING)
    ]


def test_figures_that_are_not_there() -> None:
    from tula.doctor.machine import read_conntrack

    sysctls = FakeSysctls()
    assert read_conntrack(sysctls) is None


def test_reverse_path_filters_matter_to_a_daemon() -> None:
    needs = {"eth0": Need(local=True, filters=frozenset({OFF, LOOSE}))}
    strict = {setting("all", "rp_filter"): "0", setting("eth0", "rp_filter"): "1"}
    loose = {**strict, setting("eth0", "rp_filter"): "2", setting("eth0", "accept_local"): "1"}
    for keys, wanted in [
        ({"daemon": False, "settings": strict}, []),
        ({"daemon": True, "settings": loose}, []),
        ({"daemon": True, "settings": strict}, ["rp-filter"]),
    ]:
        found = list(judge_reverse(scene(needs=needs, **keys), NOTHING))
        assert [f.fault for f in found] == wanted
        assert all("sysctl -w net/ipv4/conf/eth0/rp_filter=2" in f.commands for f in found)


def test_without_an_address_to_ask_from() -> None:
    lonely = replace(HOST, addresses=(HostAddress("eth0", ip_interface("10.0.0.100/16")),))
    assert not list(judge_sources(scene(), NOTHING))
    (found,) = judge_sources(scene(host=lonely), NOTHING)
    assert (found.fault, found.severity) == ("no-source-address", Severity.NOTE)
