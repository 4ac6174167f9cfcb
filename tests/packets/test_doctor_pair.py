"""The doctor on a pair with its engine and its daemons: faults are found, fixed, and gone.

::

    client ── router ══╤══════════════╤══════════════╤══  lan
                      lb1            lb2        backend-1, -2
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.doctor import Setup
from support.lab_configurations import service_of
from tula.lab import Host, Lab, pair, wait_until
from tula.lab.cluster import Cluster

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

VIPS = {"10.9.0.100", "fd09::100"}


class Two(Setup):
    """Both have applied one configuration; ``examine`` is of lb1."""

    network: Cluster
    other: Setup

    def __init__(self, lab: Lab, folder: Path) -> None:
        network = pair(lab, backends=1)
        super().__init__(
            network,
            folder / "tula.yaml",
            {"web": service_of(network)},
            load_balancers=network.balancers,
            high_availability={"vrrp": {"id": 84}},
        )
        self.serve(udp=())
        self.apply()
        self.other = Setup(network, self.path, self.services, **self.top)
        self.other.lb, self.other.here = network.lbs[1], type(self.here)(network.lbs[1])
        self.other.apply()

    def holders(self) -> list[str]:
        """Who has the VIPs."""
        return [lb.name for lb in self.network.lbs if set(lb.addresses("eth0")) >= VIPS]

    def settle(self, active: int = 1) -> None:
        """Until so many balancers have them."""
        wait_until(lambda: len(self.holders()) == active, 60.0, f"{active} active")

    def found(self, host: Host | None = None) -> dict[str, dict[str, Any]]:
        """By id; of lb1 unless said otherwise."""
        setup = self.other if host is self.other.lb else self
        return {f["id"]: f for f in setup.examine() if f["id"] != "peers-unknown"}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with Lab() as lab:
        yield Two(lab, tmp_path_factory.mktemp("pair"))


@contextmanager
def rules(setup: Setup, text: str) -> Iterator[None]:
    chain = f"chain in {{ type filter hook input priority 0; {text} }}"
    setup.nft(setup.lb, f"table inet guard {{\n{chain}\n}}\n")
    try:
        yield
    finally:
        setup.lb.run(["nft", "delete", "table", "inet", "guard"])


def test_nothing_is_found_on_either(two: Two) -> None:
    two.settle()
    assert two.found() == {}
    assert two.found(two.other.lb) == {}


def test_a_filter_before_keepalived_is_found(two: Two) -> None:
    """Of equals the one with the higher address goes on: so lb2 takes the VIPs when it hears
    nothing, and lb1 has them too when it hears nothing."""
    two.settle()
    with rules(two.other, "ip protocol 112 drop;"):
        wait_until(lambda: two.holders() == ["lb2"], 60.0, "lb2 has the VIPs")
        assert set(two.found(two.other.lb)) == {"peer-filtered"}
    with rules(two, "ip protocol 112 drop;"):
        two.settle(2)
        here = two.found()
        assert set(here) == {"vip-on-several", "one-way-adverts", "peer-filtered"}
        assert "this machine has to yield" in here["one-way-adverts"]["evidence"]
        there = two.found(two.other.lb)
        assert set(there) == {"vip-on-several", "one-way-adverts"}
        assert "lb1 has to yield" in there["one-way-adverts"]["evidence"]
        two.fix(here["peer-filtered"])
        two.settle()
        assert two.found() == {}


def test_flows_that_are_not_told_and_not_taken(two: Two) -> None:
    two.settle()
    two.lb.set_link("tula-sync", False)
    found = two.found()
    assert set(found) - {"drift"} == {"flows-not-told"}
    two.fix(found["flows-not-told"])
    two.other.lb.run(["ip", "link", "del", "tula-sync"])
    assert set(two.found()) == {"flows-not-taken"}
    there = two.found(two.other.lb)
    assert set(there) - {"drift"} == {"flows-not-told"}
    two.other.fix(there["flows-not-told"])
    assert two.found() == {}
    assert two.found(two.other.lb) == {}


def test_engines_that_have_died(two: Two) -> None:
    """Nobody has the VIPs then."""
    for lb in two.network.lbs:
        lb.kill("keepalived")
    wait_until(lambda: not any(lb.processes("keepalived") for lb in two.network.lbs), what="dead")
    for lb in two.network.lbs:
        for vip in ("10.9.0.100/32", "fd09::100/128"):
            lb.run(["ip", "address", "del", vip, "dev", "eth0"], check=False)
    found = two.found()
    assert set(found) - {"drift"} == {"engine-not-running", "vip-on-none"}
    two.apply()
    two.other.apply()
    two.settle()
    assert two.found() == {}
