"""BIRD sees every route of table 84 when a thousand change at once.

::

    lb (BIRD by the generated configuration; its router is nowhere)
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from tula.kernel.vip_routes import KernelVipRoutes, VipRoute
from tula.lab import Lab, wait_until
from tula.model.bgp import BgpSession, DesiredBgp
from tula.vip.bird import LAST_RESORT, SERVED, render_bird

pytestmark = pytest.mark.kernel

VIPS = [ip_address(f"{net}{n:x}") for net in ("fd77::", "fd78::") for n in range(1, 251)]
VIPS += [ip_address(f"10.77.{net}.{n}") for net in (1, 2) for n in range(1, 251)]


def test_a_thousand_routes_at_once(lab: Lab) -> None:
    """By default the kernel's report of some is lost, and they are late by up to a scan (10 s)."""
    lb = lab.host("lb", lab.switch(), "10.9.0.2/24")
    lb.directory.mkdir(parents=True, exist_ok=True)
    own, router = ip_address("10.9.0.2"), ip_address("10.9.0.1")
    session = BgpSession(router, 65000, own, "eth0", ((4, None),))
    file, log, control = (lb.directory / f"bird.{what}" for what in ("conf", "log", "ctl"))
    file.write_text(render_bird(DesiredBgp(IPv4Address("10.9.0.2"), 65001, 0.3, (session,))))
    with log.open("w") as output:
        command = ["bird", "-f", "-c", file, "-s", control]
        lb.popen(command, stdout=output.fileno(), stderr=output.fileno())

    def asked(*words: str) -> str:
        return lb.run(["birdc", "-s", control, "show", *words], check=False).stdout

    def seen() -> int:
        return asked("route", "where", f"krt_metric = {SERVED}").count("blackhole")

    wait_until(lambda: "ready" in asked("status"), 60, "BIRD")
    with lb.enter():
        table = KernelVipRoutes()
        first, second = ([VipRoute(vip, m) for vip in VIPS] for m in (SERVED, LAST_RESORT))
        assert table.change(first, ()) == []
        assert table.change(second, first) == []
        assert table.change(first, second) == []
    wait_until(lambda: seen() == len(VIPS), 60, "all routes")
    assert "dropped" not in log.read_text()
