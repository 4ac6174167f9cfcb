"""What interfaces must allow for answers from a VIP, and the least change that allows it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.builders import make_config, make_host
from tula.model.desired import DesiredVip
from tula.model.host import Route
from tula.plan.probe_sysctls import (
    InterfaceRequirement,
    ReplyPath,
    plan_probe_sysctls,
    plan_requirements,
    setting,
    settings_to_read,
)
from tula.plan.routes import Routes

VIP = ip_address("10.0.0.100")
LOCAL, LOOSE = (
    InterfaceRequirement(accept_local=True, rp_filters=frozenset({0, 2})),
    InterfaceRequirement(rp_filters=frozenset({0, 2})),
)
OFF = InterfaceRequirement(rp_filters=frozenset({0}))


def needs_of(route: Route | None, *, owned: bool = False) -> InterfaceRequirement:
    host = make_host(make_config())
    held = Routes(vips=[DesiredVip(VIP, "eth0")] if owned else [])
    host = replace(host, routes={VIP: route} if route else {})
    found = plan_requirements([ReplyPath("eth0", VIP)], host, held)
    return found["eth0"]


def test_needs_by_where_the_vip_is() -> None:
    assert needs_of(Route("unicast", "eth0"), owned=True) == LOCAL
    assert needs_of(Route("local", "lo")) == LOCAL
    assert needs_of(Route("unicast", "eth0")) == InterfaceRequirement()
    assert needs_of(Route("unicast", "eth1")) == LOOSE
    assert needs_of(Route("none")) == OFF
    assert needs_of(None) == OFF


def test_ipv6_needs_nothing() -> None:
    answer = ReplyPath("eth0", ip_address("2001:db8::100"))
    assert plan_requirements([answer], make_host(make_config()), Routes()) == {}


def values(**given: int) -> dict[str, str]:
    """``all`` and ``eth0`` are rp_filter, ``local`` is accept_local of eth0."""
    names = {"local": setting("eth0", "accept_local")}
    found = {names.get(n, setting(n, "rp_filter")): str(v) for n, v in given.items()}
    return dict.fromkeys(settings_to_read(["eth0", "eth1"]), "0") | found


def made(need: InterfaceRequirement, **given: int) -> dict[str, int]:
    found = plan_probe_sysctls({"eth0": need}, values(**given), ["eth0", "eth1"])
    short = {setting("eth0", "accept_local"): "local"}
    return {short.get(name, name.split("/")[3]): int(value) for name, value in found.items()}


def test_what_suffices_stays() -> None:
    assert made(InterfaceRequirement(), eth0=1, all=1) == {}
    assert made(LOOSE, eth0=2) == {}
    assert made(LOOSE, all=2) == {}
    assert made(LOOSE, eth0=0) == {}
    assert made(LOCAL, eth0=0, local=1) == {}
    assert made(OFF, eth1=1) == {}


def test_strict_becomes_loose_on_the_interface_alone() -> None:
    assert made(LOCAL, eth0=1) == {"eth0": 2, "local": 1}
    assert made(LOCAL, all=1) == {"eth0": 2, "local": 1}
    assert made(LOOSE, all=1, eth0=2) == {}


def test_all_is_lowered_only_where_there_must_be_no_filter_and_others_keep_theirs() -> None:
    assert made(OFF, eth0=1) == {"eth0": 0}
    assert made(OFF, all=1, eth0=1, eth1=2, default=0) == {"default": 1, "all": 0, "eth0": 0}
    assert made(OFF, all=2, eth1=1) == {"default": 2, "eth1": 2, "all": 0}


def test_an_interface_that_is_gone_needs_nothing() -> None:
    assert plan_probe_sysctls({"gone": OFF}, values(all=1), ["eth0"]) == {}


filters = st.integers(0, 2)


@given(
    st.sampled_from([InterfaceRequirement(), LOCAL, LOOSE, OFF]), filters, filters, filters, filters
)
def test_afterwards_all_is_allowed_nobody_else_changes_and_nothing_is_left_to_do(
    need: InterfaceRequirement, everyone: int, first: int, second: int, default: int
) -> None:
    before = values(all=everyone, eth0=first, eth1=second, default=default)
    change = plan_probe_sysctls({"eth0": need}, before, ["eth0", "eth1"])
    after = before | change

    def effective(of: dict[str, str], name: str) -> int:
        return max(int(of[setting(name, "rp_filter")]), int(of[setting("all", "rp_filter")]))

    assert effective(after, "eth0") in need.rp_filters
    assert effective(after, "eth1") == effective(before, "eth1")
    assert effective(after, "default") == effective(before, "default")
    assert not need.accept_local or after[setting("eth0", "accept_local")] == "1"
    assert plan_probe_sysctls({"eth0": need}, after, ["eth0", "eth1"]) == {}
    assert all(before[name] != value for name, value in change.items())


@pytest.mark.parametrize("name", ["eth0.7", "a b"])
def test_names_of_interfaces_stand_as_they_are(name: str) -> None:
    assert setting(name, "rp_filter") == f"net/ipv4/conf/{name}/rp_filter"
