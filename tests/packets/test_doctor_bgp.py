"""The doctor on a balancer that announces by BGP: faults are found, fixed, and gone.

::

    client ── router (BIRD) ══ lan ══ lb1, lb2, lb3, backend-1

Only lb1 runs BIRD; the others are there, and have no configuration.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.doctor import Setup
from support.lab_configurations import service_of
from tula.lab import BALANCERS_AS, ROUTERS, BgpRouter, Cluster, Lab, three, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

_OF_OTHERS = {"peers-unknown", "flows-not-taken"}


class Announcing(Setup):
    """lb1 has applied the configuration; ``examine`` is of it."""

    network: Cluster

    def __init__(self, lab: Lab, folder: Path) -> None:
        network = three(lab, backends=1)
        self.router = BgpRouter(network)
        self.router.start()
        bgp = {"as": BALANCERS_AS, "routers": dict(ROUTERS), "bfd": "300ms"}
        super().__init__(
            network,
            folder / "tula.yaml",
            {"web": service_of(network)},
            load_balancers=network.balancers,
            high_availability={"bgp": bgp},
        )
        self.serve(udp=())
        self.apply()

    def settle(self) -> None:
        """Until the doctor has nothing to say: sessions come up within seconds."""
        found: dict[str, Any] = {}

        def fine() -> bool:
            found.clear()
            found.update(self.found())
            return not found

        wait_until(fine, 90.0, f"a healthy balancer: {found}")

    def found(self) -> dict[str, dict[str, Any]]:
        """By id."""
        return {f["id"]: f for f in self.examine() if f["id"] not in _OF_OTHERS}

    def wait_for(self, *ids: str) -> dict[str, dict[str, Any]]:
        """Until these are found, and no others."""
        found: dict[str, dict[str, Any]] = {}

        def there() -> bool:
            found.clear()
            found.update(self.found())
            return set(found) == set(ids)

        wait_until(there, 90.0, f"{ids}")
        return found


@pytest.fixture(scope="module")
def announcing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Announcing]:
    with Lab() as lab:
        made = Announcing(lab, tmp_path_factory.mktemp("bgp"))
        made.settle()
        yield made
        made.here.clear()


def test_routes_of_others_in_the_table(announcing: Announcing) -> None:
    announcing.lb.run(["ip", "route", "add", "blackhole", "10.99.0.0/24", "table", "84"])
    found = announcing.found()
    assert set(found) - {"drift"} == {"table-in-use"}
    announcing.fix(found["table-in-use"])
    announcing.settle()


def test_a_router_that_is_not_there(announcing: Announcing) -> None:
    """Its program first, then its cable."""
    announcing.router.stop()
    found = announcing.wait_for("bgp-session")
    assert found["bgp-session"]["where"] in ROUTERS
    announcing.network.gateway.set_cable("eth0", False)
    announcing.wait_for("bgp-session", "router-unreachable")
    announcing.network.gateway.set_cable("eth0", True)
    announcing.router.start()
    announcing.settle()


def test_bfd_is_dropped_here(announcing: Announcing) -> None:
    """BGP ends with it, since BFD says that the router is dead."""
    chain = "chain in { type filter hook input priority 0; udp dport 3784 drop; }"
    announcing.nft(announcing.lb, f"table inet guard {{\n{chain}\n}}\n")
    try:
        found = announcing.wait_for("peer-filtered", "bgp-session")
        assert "udp port 3784" in found["peer-filtered"]["evidence"]
        for each in announcing.examine():
            if each["id"] == "peer-filtered":
                announcing.fix(each)
        announcing.settle()
    finally:
        announcing.lb.run(["nft", "delete", "table", "inet", "guard"])


def test_bird_has_died(announcing: Announcing) -> None:
    pid = int((announcing.lb.directory / "run/bird/bird.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not announcing.lb.processes("bird"), what="no BIRD")
    assert set(announcing.found()) - {"drift"} == {"engine-not-running"}
    announcing.apply()
    announcing.settle()
