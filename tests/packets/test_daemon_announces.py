"""The daemon tells of its VIPs until somebody must have heard of them.

::

    client-1            lb  VIP 10.9.0.100, fd09::100       backend-1
        │               │ eth0                                  │
    ════╧═══════════════╧═══════════════════════════════════════╧═  lan
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from support.arp_nd import announcements_of
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import vip_of
from support.running import Running
from tula.lab import Capture, Lab, flat, serve_tcp, tcp_ask, wait_until

pytestmark = pytest.mark.kernel

_WITHIN = 60.0


def test_again_when_a_carrier_comes_and_for_seconds_after(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1, backends=1)
    lb = network.lb
    path = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})

    def heard(vips: Sequence[str], times: int) -> None:
        def enough() -> bool:
            told = announcements_of(lb.mac(), capture.frames(outgoing=False))
            return all(told.count(vip) >= times for vip in vips)

        wait_until(enough, _WITHIN, f"{times} announcements of each VIP")

    lb.set_cable("eth0", False)
    with Capture(network.client) as capture, Running(lb, path) as daemon:
        assert any("eth0 has no carrier" in line for line in daemon.status()["daemon"]["problems"])
        assert announcements_of(lb.mac(), capture.frames(outgoing=False)) == []
        lb.set_cable("eth0", True)
        heard(network.vips, 3)  # at once, after 1 s, after 2 s
        capture.clear()
        more = [*network.vips, "10.9.0.101", "fd09::101"]
        write_config(path, {"web": service_of(network, vip=more)})
        call_tula(lb, "apply")
        heard(more[2:], 3)


@pytest.mark.parametrize("family", [4, 6])
def test_an_interface_that_comes_after_the_daemon(lab: Lab, tmp_path: Path, family: int) -> None:
    """At boot, with nothing accepted before: as with a device that keepalived makes."""
    network = flat(lab, clients=1, backends=1)
    lb, vip = network.lb, vip_of(network, family)
    serve_tcp(network.backends[0], [80])
    web = service_of(network, vip=vip, announce="late")
    path = write_config(tmp_path / "tula.yaml", {"web": web}, ("eth0", "late"))
    assert call_tula(lb, "apply", "-f", path, check=False).returncode == 2, "a person is told"
    with Running(lb, path) as daemon:
        lines = daemon.status()["daemon"]["problems"]
        assert any("no interface 'late' here" in line for line in lines), lines
        assert "level=warning event=network-warning" in daemon.log
        virtual = "00:00:5e:00:01:33"
        made = f"link add late link eth0 address {virtual} type macvlan\nlink set late up\n"
        lb.run(["ip", "-batch", "-"], input=made)
        wait_until(lambda: vip in lb.addresses("late"), _WITHIN, "the VIP")
        wait_until(lambda: not daemon.status()["daemon"]["problems"], _WITHIN, "no problem")
        assert "event=network-recovered" in daemon.log
        network.client.run(
            ["ip", "neigh", "replace", vip, "lladdr", virtual, "dev", "eth0", "nud", "permanent"]
        )
        assert tcp_ask(network.client, vip, 80) == "backend-1"
