"""A balancer that is a backend: what it lacks, and who forwards to it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import make_config, make_host, make_service
from tula.config.load import parse_config
from tula.model.config import Backend, Config
from tula.model.host import HostAddress, HostView
from tula.plan.desired import plan_desired
from tula.plan.forwarders import forwarder_macs, forwarders, unknown_forwarders
from tula.plan.high_availability import plan_role
from tula.plan.routes import plan_routes

VIP = "10.0.0.100"
OWN, OTHER = ip_address("10.0.0.2"), ip_address("10.0.0.3")
PAIR = """
interfaces: [eth0]
load_balancers: {{lb1: 10.0.0.2, lb2: 10.0.0.3}}
{top}
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    {announce}
    backends: {backends}
"""
BOTH = "{lb1: {address: 10.0.0.2}, lb2: {address: 10.0.0.3}}"
ITSELF = "{here: {address: self}}"
VRRP = "high_availability: {vrrp: {id: 84}}"
AWAY = "announce: false"


def pair(top: str = "", announce: str = "", backends: str = BOTH) -> Config:
    return parse_config(PAIR.format(top=top, announce=announce, backends=backends)).config


def on(interface: str, config: Config) -> HostView:
    """The machine, with the VIP on that interface; none for an empty one."""
    host = make_host(config)
    held = HostAddress(interface, ip_interface(VIP))
    return replace(host, addresses=(*host.addresses, held)) if interface else host


@pytest.mark.parametrize(
    ("config", "interface", "told"),
    [
        (pair(), "", False),
        (pair(announce=AWAY), "", True),
        (pair(announce=AWAY), "eth0", False),
        (pair(announce=AWAY), "lo", False),
        (pair(VRRP), "", True),
        (pair(VRRP), "eth0", True),  # active; it serves when it is no longer, too
        (pair(VRRP), "lo", False),
        (pair(VRRP, backends=ITSELF), "eth0", False),
        (pair(VRRP, backends=ITSELF), "", True),
        (pair(announce=AWAY, backends="{lb2: {address: 10.0.0.3}}"), "", False),
    ],
)
def test_the_own_stack_needs_the_vip(config: Config, interface: str, told: bool) -> None:
    found = [c.id for c in plan_routes(config, on(interface, config)).cautions]
    assert ("own-vip-missing" in found) is told


def test_a_vip_on_lo_makes_nobody_active() -> None:
    config = pair(VRRP)
    roles = [plan_role(config, on(name, config), standby=False) for name in ("lo", "eth0")]
    assert [str(role) for role in roles] == ["standby", "active"]


def test_who_forwards_here() -> None:
    config = pair()
    host = make_host(config)
    assert forwarders(config, host) == (OTHER,)
    assert forwarder_macs(config, host) == (host.macs[OTHER],)
    assert not unknown_forwarders(config, host)
    assert unknown_forwarders(config, replace(host, macs={})) == (("eth0", OTHER),)
    assert not forwarders(pair(backends=ITSELF), host), "self is no backend of another machine"
    single = make_config(make_service(backends=[Backend("here", (OWN,))]))
    assert not forwarders(single, make_host(single))


def test_it_has_the_same_place_on_both() -> None:
    config = pair()
    here = make_host(config)
    there = replace(
        here, routes={OWN: here.routes[OTHER], OTHER: replace(here.routes[OWN], source=OTHER)}
    )
    tables = []
    for host in (here, there):
        (service,) = plan_desired(config, host, plan_routes(config, host), {}, {}).state.services
        assert service.maglev is not None
        tables.append((service.maglev.content, service.maglev.slots))
        assert [b.own for b in service.backends].count(True) == 1
    assert tables[0] == tables[1]
