"""A standby that comes back empty is told the flows by its peer before it could take over.

::

    client-1 ── router ══ lan ══ lb1, lb2 (VRRP, peers of each other), backend-1, -2
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.connections import Connections
from support.high_availability import TCP, Balancers
from tula.lab import Host, Lab, pair, wait_until

pytestmark = pytest.mark.kernel

SOAK = bool(os.environ.get("TULA_SOAK"))
COUNT = 200
WITHIN = 60.0


def exchange(one: Host, other: Host) -> None:
    """Makes them peers, by pasting."""
    invited = one.tula("peer", "add", other.name, input="").stdout
    answered = other.tula("peer", "accept", input=invited).stdout
    one.tula("peer", "accept", input=answered)


def test_who_comes_back_empty_knows_all_before_it_takes_over(lab: Lab, tmp_path: Path) -> None:
    network = pair(lab)
    balancers = Balancers(network, tmp_path, {"vrrp": {"id": 85}}, api={"listen": "0.0.0.0:8420"})
    balancers.serve()
    with balancers:
        active, standby = balancers.active, balancers.standby
        daemons = balancers.daemons
        for lb in network.lbs:
            wait_until(
                lambda lb=lb: daemons[lb.name].status()["daemon"]["network"]["fingerprint"],
                WITHIN,
                "the gateway",
            )
        exchange(active, standby)
        with Connections(network.client, network.vips, TCP, COUNT, 0.2) as opened:
            opened.wait_for_answers()
            for lb in network.lbs:
                lb.tula("weight", "web/backend-1", "5")
            opened.wait_for_answers()
            standby.power_off()
            wait_until(lambda: not daemons[active.name].status()["peers"][0]["alive"], WITHIN)
            lab.power_on(standby)
            daemons[standby.name].start()
            wait_until(lambda: standby.processes("keepalived"), WITHIN, "the engine is let go")

            def learned() -> bool:
                return bool(daemons[standby.name].status()["flows"]["learned"] > COUNT / 5)

            if SOAK:  # flows are waited for no longer than 5 s, which a busy machine may need
                assert learned(), "before it could take over"
            wait_until(learned, WITHIN, "flows")
            status = daemons[standby.name].status()
            assert (status["balancer"], status["role"]) == (standby.name, "standby")

            def equal() -> bool:
                (peer,) = daemons[standby.name].status()["peers"]
                keys = ("alive", "configuration_equal", "overrides_equal")
                return peer["role"] == "active" and all(peer[key] for key in keys)

            wait_until(equal, WITHIN, "what is equal")
            active.power_off()
            wait_until(lambda: balancers.holders() == [standby], WITHIN, "a failover")
            opened.wait_for_answers()
        assert opened.found.broken == 0, opened.found
