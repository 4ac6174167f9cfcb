"""Ten minutes at full CPU on all cores: no balancer takes over, and no session ends.

::

    a pair by VRRP at the default interval (100 ms); three by BGP with BFD (300 ms); at once

Only in `make soak`; TULA_SOAK_SECONDS says for how long.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.high_availability import TCP, UDP, Balancers
from support.lab_configurations import backends_of
from tula.lab import (
    BALANCERS_AS,
    ROUTERS,
    BgpRouter,
    Capture,
    Cluster,
    Host,
    Lab,
    pair,
    three,
    wait_until,
)

pytestmark = pytest.mark.kernel

SECONDS = float(os.environ.get("TULA_SOAK_SECONDS", "600"))
BUSY = [sys.executable, "-c", "while True: pass"]
VRRP = 112
BFD = 0.3
"""Seconds after which BFD takes a neighbour for dead."""


def services(network: Cluster) -> dict[str, Any]:
    """With checks: what a busy machine answers late must not move the VIPs either."""
    common = {
        "vip": list(network.vips),
        "forwarding": "l2",
        "health": {"type": "tcp", "via": "direct", "port": TCP},
        "backends": backends_of(*network.backends),
    }
    return {
        "web": common | {"ports": [TCP]},
        "dns": common | {"protocol": "udp", "ports": [UDP]},
    }


def takeovers(lb: Host) -> int:
    """How often keepalived took the VIPs, by its log."""
    log = lb.directory / "run/keepalived/keepalived.log"
    return len(re.findall("Entering MASTER STATE", log.read_text()))


def adverts(capture: Capture) -> int:
    """How many the balancer sent."""
    frames = capture.frames(outgoing=True)
    return sum(frame[12:14] == b"\x08\x00" and frame[23] == VRRP for frame in frames)


def sessions(balancers: Balancers) -> dict[tuple[str, str], tuple[str, str, float]]:
    """By balancer and router: the states of BGP and BFD, and since when it is as it is."""
    return {
        (name, each["router"]): (each["state"], each["bfd"], each["since"])
        for name, daemon in balancers.daemons.items()
        for each in daemon.status()["bgp"]
    }


def established(balancers: Balancers) -> bool:
    """All of them, with BFD."""
    return {each[:2] for each in sessions(balancers).values()} == {("Established", "Up")}


if os.environ.get("TULA_SOAK"):

    @pytest.mark.timeout(SECONDS + 600)
    def test_no_false_takeover(lab: Lab, tmp_path: Path) -> None:
        bgp = {"as": BALANCERS_AS, "routers": dict(ROUTERS), "bfd": f"{1000 * BFD:.0f}ms"}
        with ExitStack() as stack:
            two, other = pair(lab), three(stack.enter_context(Lab()))
            BgpRouter(other).start()
            made = []
            for network, engine in ((two, {"vrrp": {"id": 84}}), (other, {"bgp": bgp})):
                one = Balancers(network, tmp_path / str(len(made)), engine, services(network))
                one.serve()
                made.append(stack.enter_context(one))
            by_vrrp, by_bgp = made
            active, standby = by_vrrp.settle()[0], by_vrrp.standby
            before = {lb: takeovers(lb) for lb in two.lbs}
            wait_until(lambda: established(by_bgp), 60, "all sessions")
            up = sessions(by_bgp)
            assert len(up) == 3 * len(ROUTERS)
            loops = [two.client.popen(BUSY) for _ in range(2 * (os.cpu_count() or 1))]
            longest, flaps = 0.0, 0
            with Capture(active) as sent, Capture(standby) as silent:
                begin = look = time.monotonic()
                while (now := time.monotonic()) < begin + SECONDS:
                    time.sleep(0.01)
                    longest = max(longest, time.monotonic() - now - 0.01)
                    if now > look + 10:
                        look, then, up = now, up, sessions(by_bgp)
                        changed = sorted(key for key in up if up[key] != then[key])
                        flaps += len(changed)
                        if changed:
                            print(f"after {now - begin:.0f} s, waited {longest:.3f} s: {changed}")
                assert all(loop.poll() is None for loop in loops)
                counted = adverts(sent), adverts(silent)
            taken = {lb.name: takeovers(lb) - before[lb] for lb in two.lbs}
            print(
                f"{SECONDS:.0f} s at a load of {os.getloadavg()[1]:.1f}: takeovers {taken}; "
                f"adverts of the active balancer {counted[0]}, of the other {counted[1]}; "
                f"{len(up)} sessions ended {flaps} times; "
                f"a process like others waited for {1000 * longest:.0f} ms at most"
            )
            assert set(taken.values()) == {0}
            assert counted[0] > 5 * SECONDS
            assert counted[1] == 0
            # Where a process waits for so long, BFD does as it was told.
            assert flaps == 0 or longest > BFD
