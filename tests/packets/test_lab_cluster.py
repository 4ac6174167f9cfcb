"""Networks of several balancers: ports that fail, machines that die, routes to several.

::

    client-1 ── router ══ lan ══ lb1, lb2 (, lb3), backend-1 …
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tula.lab import Host, Lab, hold, many_vips, pair, serve_udp, three, udp_ask, wait_until

pytestmark = pytest.mark.kernel


def reaches(host: Host, address: str) -> bool:
    """Whether one ping is answered."""
    return host.run(["ping", "-c1", "-W0.3", address], check=False).returncode == 0


def test_ports_fail_machines_die_and_all_comes_back(lab: Lab) -> None:
    network = pair(lab, backends=1)
    lb1, client = network.lbs[0], network.client
    own = lb1.addresses("eth0")
    assert all(reaches(client, address) for address in own)

    lb1.set_silent("eth0")
    assert lb1.carrier()
    assert not any(reaches(client, address) for address in own)
    lb1.set_silent("eth0", silent=False)
    assert all(reaches(client, address) for address in own)

    lb1.set_cable("eth0", plugged=False)
    wait_until(lambda: not lb1.carrier(), what="no carrier")
    assert not reaches(client, own[0])
    lb1.set_cable("eth0", plugged=True)
    wait_until(lambda: all(reaches(client, address) for address in own))

    lb1.add_address("eth0", *(f"{vip}/{128 if ':' in vip else 32}" for vip in network.vips))
    state, run = (lb1.environment()[f"TULA_{name}_DIR"] for name in ("STATE", "RUN"))
    for folder in (state, run):
        lb1.run(["touch", f"{folder}/file"])
    lb1.popen(["sleep", "1000"])
    wait_until(lambda: lb1.processes("sleep"))
    mac = lb1.mac()
    lb1.power_off()
    assert not reaches(client, own[0])
    lab.power_on(lb1)
    assert (lb1.addresses(), lb1.mac(), lb1.processes()) == (own, mac, [])
    assert lb1.run(["ls", state]).stdout == "file\n"
    assert lb1.run(["ls", run], check=False).returncode != 0
    wait_until(lambda: all(reaches(client, address) for address in own))


def test_backends_hold_many_vips(lab: Lab) -> None:
    network = pair(lab, backends=1, vips=())
    vips = many_vips(300, 300)
    (backend,) = network.backends
    hold(backend, "10.9.100.0/22", "fd09::a:0/112")
    serve_udp(backend, [53], [vips[299], vips[-1]])
    for vip in (vips[299], vips[-1]):
        assert not reaches(network.client, vip), "the backend is quiet about it"
        via = backend.addresses()[":" in vip]
        network.gateway.run(["ip", "route", "add", vip, "via", via])
        assert udp_ask(network.client, vip, 53) == "backend-1"


def test_a_router_spreads_flows_over_equal_routes(lab: Lab) -> None:
    network = three(lab, backends=1)
    for lbs in (network.lbs, network.lbs[:2]):
        network.route(*lbs)
        for vip in network.vips:
            assert network.routes(vip) == [lb.name for lb in lbs]


_VICTIM = """
from subprocess import DEVNULL
from tula.lab import Lab, pair, wait_until
with Lab() as lab:
    lb = pair(lab, backends=1).lb
    lb.popen(["setsid", "--fork", "sleep", "600"], stdout=DEVNULL, stderr=DEVNULL)
    (sleeper,) = wait_until(lambda: lb.processes("sleep"))
    print(sleeper, flush=True)
    input()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["orderly", "killed"])
def test_what_left_its_session_ends_with_the_lab(killed: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        sleeper = victim.stdout.readline().strip()
        if killed:
            victim.kill()
        else:
            victim.communicate("\n")
        wait_until(lambda: not Path(f"/proc/{sleeper}").exists(), what="the end of the stray")
