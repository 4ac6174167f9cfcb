"""A balancer that serves already becomes one of a pair, and is alone again, under load."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.datagrams import Datagrams, serve_datagrams
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Cluster, Host, Lab, pair, wait_until

pytestmark = pytest.mark.kernel

VRRP = {"high_availability": {"vrrp": {"id": 84}}}


def write(network: Cluster, path: Path, **top: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    service = service_of(network, protocol="udp", ports=[53])
    return write_config(path, {"dns": service}, load_balancers=network.balancers, **top)


def holders(network: Cluster) -> list[Host]:
    return [lb for lb in network.lbs if set(network.vips) <= set(lb.addresses("eth0"))]


def test_a_balancer_becomes_one_of_a_pair_and_is_alone_again(lab: Lab, tmp_path: Path) -> None:
    network = pair(lab)
    lb1, lb2 = network.lbs
    for backend in network.backends:
        serve_datagrams(backend, 53)
    alone = write(network, tmp_path / "lb1.d" / "tula.yaml")
    paired = [write(network, tmp_path / f"{lb.name}.d" / "pair.yaml", **VRRP) for lb in network.lbs]
    with ExitStack() as stack:
        stack.enter_context(Running(lb1, alone))
        wait_until(lambda: holders(network) == [lb1])
        plan = lb1.tula("plan", "-f", paired[0]).stdout
        assert "+ high_availability.vrrp: id 84" in plan
        assert "~ service dns: announced by this machine alone → VRRP" in plan
        assert "+ service" not in plan, "it serves already"
        with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
            lb1.tula("apply", "-f", paired[0], "--yes")
            wait_until(lambda: lb1.processes("keepalived"))
            wait_until(lambda: holders(network) == [lb1], what="the VIPs in keepalived's hands")
            second = stack.enter_context(Running(lb2, paired[1]))
            wait_until(lambda: lb2.processes("keepalived"), 60)
        assert probe.heard.lost == 0, probe.heard
        assert holders(network) == [lb1], "who comes takes nothing"
        with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
            second.stop()
            lb2.tula("clear")
            lb1.tula("apply", "-f", alone, "--yes")
            wait_until(lambda: not lb1.processes("keepalived"))
            wait_until(lambda: holders(network) == [lb1])
        assert probe.heard.lost == 0, probe.heard
        assert lb1.tula("plan").stdout == "nothing to change\n"
