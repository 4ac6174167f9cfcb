"""Whichever balancer a client's next connection comes to, it goes to the client's backend.

::

    router (200 clients, as raw packets) ══ lan ══ lb1, lb2, backend-1 … 3      (VIPs on lo)
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.balancers import Balancers
from support.crowd import ACK, FIN, Crowd
from support.packets import vip_of
from support.persistent import moved, one
from support.queues import queue_drops
from tula.lab import Lab, pair, wait_until

pytestmark = pytest.mark.kernel

MANY = bool(os.environ.get("TULA_SOAK"))
COUNT = 2000 if MANY else 200
CLIENTS = range(COUNT)
CASES = [
    (4, "moved", "maglev"),
    (6, "moved", "rr"),
    *(
        [(6, "moved", "source-hash"), (4, "moved", "least-connections"), (4, "all", "random")]
        if MANY
        else []
    ),
]


@pytest.mark.parametrize(("family", "flows", "scheduler"), CASES)
def test_a_balancer_takes_over(
    lab: Lab, tmp_path: Path, family: int, flows: str, scheduler: str
) -> None:
    """After a change that the hash does not explain: where it is the scheduler, exceptions were
    told; where it is not, every flow. The connections have ended by then."""
    network = pair(lab, backends=3)
    lbs = Balancers(network, tmp_path, flows, scheduler=scheduler, persistence="5m")
    lbs.apply(b1=100, b2=100)
    first, second = network.lbs
    with Crowd(network, network.gateway, vip_of(network, family), to=first).here() as crowd:
        before = one(crowd.connect(CLIENTS, 2))
        lbs.apply(b1=100, b2=100, b3=100)
        lbs.share_again(first)
        learned, dropped = lbs.counted(second, "flows_learned"), queue_drops()
        kept = crowd.send(packet._replace(flags=ACK) for packet in crowd.last)
        assert {packet.client: name for packet, name in kept.items()} == before
        crowd.send(packet._replace(flags=FIN | ACK) for packet in crowd.last)
        by_hash = scheduler in ("maglev", "source-hash")
        # Of the clients that the hash would give to the third backend, four flows' packets each.
        told = COUNT // 6 if by_hash else 4 * COUNT

        def heard() -> bool:
            # What this machine had no room for, it tells nobody of.
            missed = queue_drops() - dropped
            return lbs.counted(second, "flows_learned") >= learned + told - missed

        wait_until(heard)
        if by_hash:
            assert lbs.counted(second, "flows_learned") < learned + 4 * COUNT
        assert one(crowd.connect(CLIENTS)) == before
        crowd.through(second)
        after = one(crowd.connect(CLIENTS, 2))
        assert moved(before, after) == {}
        assert "backend-3" not in after.values()
