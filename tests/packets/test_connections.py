"""Connections stay with their backend through every change of the configuration.

::

    client-1 (60 TCP connections and 60 UDP flows of each IP version)
         │                       lb           backend-1 … 4
         │                       │                │   (VIPs on lo)
    ═════╧═══════════════════════╧════════════════╧═════  lan

The first three backends serve at the start. Each test changes the configuration under
flows that are open, and asks over each of them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.lab_configurations import backends_of
from support.packets import FAMILIES
from support.serving import Held, Serving, silent

pytestmark = pytest.mark.kernel

FLOWS = 60


def adding_a_backend(serving: Serving) -> None:
    serving.web["backends"] |= backends_of(serving.network.backends[3])


def reweighing(serving: Serving) -> None:
    for name, weight in (("backend-1", 1), ("backend-2", 5000), ("backend-3", 30)):
        serving.web["backends"][name]["weight"] = weight


def draining_one(serving: Serving) -> None:
    serving.web["backends"]["backend-1"]["weight"] = 0


def draining_all(serving: Serving) -> None:
    for backend in serving.web["backends"].values():
        backend["weight"] = 0


def renaming(serving: Serving) -> None:
    held = serving.web["backends"]
    serving.web["backends"] = {f"renamed-{name[-1]}": backend for name, backend in held.items()}


def reordering(serving: Serving) -> None:
    serving.web["backends"] = dict(reversed(serving.web["backends"].items()))


def another_scheduler(word: str) -> Callable[[Serving], None]:
    def change(serving: Serving) -> None:
        serving.web["scheduler"] = word

    return change


def adding_ports(serving: Serving) -> None:
    serving.web["ports"] = [80, 81, "8000-8010"]


def any_port(serving: Serving) -> None:
    serving.web["ports"] = "any"


def adding_a_service(serving: Serving) -> None:
    others = serving.service(ports=[81], backends=backends_of(serving.network.backends[3]))
    serving.configuration["services"] = {"api": others, "web": serving.web}


def renaming_the_service(serving: Serving) -> None:
    reweighing(serving)
    serving.configuration["services"] = {"other": serving.web}


def giving_the_port_away(serving: Serving) -> None:
    others = serving.service(backends=backends_of(serving.network.backends[3]))
    serving.configuration["services"] = {"api": others, "web": serving.web | {"ports": [81]}}


def another_affinity(serving: Serving) -> None:
    serving.web["affinity"] = "client"


def another_hash(serving: Serving) -> None:
    serving.configuration["maglev"] = {"seed": 1, "slots": 509}


def losing_the_state(serving: Serving) -> None:
    serving.forget_state()
    reweighing(serving)


def outgrowing_the_maps(serving: Serving) -> None:
    many = {f"far-{n}": {"address": f"10.50.{n >> 8}.{n & 255}"} for n in range(2, 1200)}
    extra = serving.service(vip=[serving.network.vip4], ports=[9], backends=many)
    serving.configuration["services"]["many"] = extra


def other_times(serving: Serving) -> None:
    serving.configuration["connections"] = {"tcp": "1h", "udp": "30s", "tcp_half_open": "5s"}


MOVING = [
    adding_a_backend,
    reweighing,
    draining_one,
    another_scheduler("source-hash"),
    another_affinity,
    another_hash,
    losing_the_state,
    renaming_the_service,
    giving_the_port_away,
]
"""Changes that move flows that no table holds."""
OTHERS = [
    draining_all,
    renaming,
    reordering,
    another_scheduler("rr"),
    another_scheduler("random"),
    adding_ports,
    any_port,
    adding_a_service,
    outgrowing_the_maps,
    other_times,
]


def name_of(change: Any) -> str:
    inside = [cell.cell_contents for cell in change.__closure__ or ()]
    return "-".join([change.__qualname__.split(".")[0], *map(str, inside)])


@pytest.mark.parametrize("change", MOVING + OTHERS, ids=name_of)
def test_flows_stay_through(serving: Serving, change: Callable[[Serving], None]) -> None:
    held = Held(serving, FLOWS)
    assert set(held.backends.values()) == {"backend-1", "backend-2", "backend-3"}
    change(serving)
    assert serving.apply() is (change not in (renaming, reordering)), "those change nothing"
    if change in MOVING:
        moved = [flow for flow in held.backends if serving.by_hash(*flow) != held.backends[flow]]
        assert len(moved) > FLOWS / 10, "a table was needed"
    for _ in range(2):
        assert held.answers() == held.backends
    Serving(serving.network, serving.path).apply()
    assert held.answers() == held.backends, "and back"


def test_flows_stay_through_all_of_them_in_a_row(serving: Serving) -> None:
    held = Held(serving, FLOWS)
    for change in (adding_a_backend, reordering, reweighing, adding_ports, another_affinity):
        change(serving)
        serving.apply()
        assert held.answers() == held.backends, change.__name__
    serving.web["affinity"] = "connection"  # turns are a connection's
    for scheduler in ("maglev", "rr", "source-hash", "random", "wrr", "maglev"):
        serving.web["scheduler"] = scheduler
        serving.apply()
        assert held.answers() == held.backends, scheduler
    renaming(serving)
    serving.apply()
    serving.forget_state()
    draining_all(serving)
    serving.apply()
    assert held.answers() == held.backends


def test_a_lost_table_learns_anew_who_speaks(serving: Serving) -> None:
    """As after a flush, or at another balancer: by hash first, and not only as long as it lasts."""
    held = Held(serving, FLOWS)
    with silent(serving.lb):  # a late ACK meets its own stack; with a daemon that keeps silent
        serving.lb.run(["nft", "delete", "table", "netdev", "tula"])
        serving.apply()
    assert held.answers() == held.backends
    reweighing(serving)
    serving.apply()
    moved = [flow for flow in held.backends if serving.by_hash(*flow) != held.backends[flow]]
    assert len(moved) > FLOWS / 10, "a table was needed"
    assert held.answers() == held.backends


def test_nobody_new_comes_to_a_drained_backend(serving: Serving) -> None:
    held = Held(serving, FLOWS)
    draining_one(serving)
    serving.apply()
    for family in (4, 6):
        ports = range(30000, 30100)
        opened = serving.connect(family, ports)
        fresh = {flow.backend for flow in opened}
        assert fresh == {"backend-2", "backend-3"}
        assert set(serving.udp(family, ports).values()) == fresh
    assert held.answers() == held.backends


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_that_leaves_the_document_takes_its_flows_along(
    serving: Serving, family: int
) -> None:
    ports = range(23000, 23020)
    for _ in range(3):  # learned, then hot, then forwarded without a dispatch
        assert len(serving.udp(family, ports)) == len(ports)
    serving.web["ports"] = [81]
    serving.apply()
    counted = serving.status()["services"][0]["packets"]
    assert serving.udp(family, ports, allow_loss=True) == {}, "the host refuses them"
    assert serving.status()["services"][0]["packets"] == counted
