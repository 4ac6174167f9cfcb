"""The table of VIPs' routes: the fake and the kernel agree."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from tula.kernel.fake import FakeVipRoutes
from tula.kernel.vip_routes import KernelVipRoutes, VipRoute, VipRoutes, VipTable
from tula.lab import Lab

ROUTES = [
    VipRoute(ip_address(text), metric)
    for text in ("10.77.0.1", "fd77::1")
    for metric in (100, 200, 300)
]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def routes(request: pytest.FixtureRequest) -> Iterator[VipRoutes]:
    if request.param == "fake":
        yield FakeVipRoutes()
        return
    with Lab() as lab, lab.host("lb").enter():
        yield KernelVipRoutes()


def test_routes_come_and_go_by_their_metrics(routes: VipRoutes) -> None:
    assert routes.read() == VipTable()
    assert routes.change(ROUTES, ()) == []
    assert routes.read().routes == set(ROUTES)
    assert routes.change((), ROUTES[1:]) == []
    assert routes.read().routes == {ROUTES[0]}


def test_what_is_done_is_no_failure(routes: VipRoutes) -> None:
    assert routes.change(ROUTES[:1], ROUTES[1:]) == []
    assert routes.change(ROUTES[:1], ROUTES[1:]) == []
    assert routes.read().routes == {ROUTES[0]}


@pytest.mark.kernel
def test_others_routes_are_told_apart_and_other_tables_left_out() -> None:
    with Lab() as lab:
        lb = lab.host("lb")
        for words in (
            "blackhole 10.77.0.9 table 84 metric 100",
            "unreachable fd77::9 table 84 proto 84 metric 100",
            "blackhole 10.77.0.0/24 table 84 proto 84",
            "blackhole 10.77.0.8 table 85 proto 84 metric 100",
        ):
            version = "-6" if "::" in words else "-4"
            lb.run(["ip", version, "route", "add", *words.split()])
        with lb.enter():
            routes = KernelVipRoutes()
            routes.change(ROUTES[:1], ())
            found = routes.read()
    assert found.routes == {ROUTES[0]}
    assert set(found.foreign) == {
        ip_network(text) for text in ("10.77.0.9/32", "fd77::9/128", "10.77.0.0/24")
    }
