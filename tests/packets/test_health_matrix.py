"""A healthy backend is up, whatever the way to it, and wherever the VIP is; what goes wrong with
one takes it out of service and is named, and clients go to the others.

::

    client-1 ── wan ── router ── far ── backend-1 … -3   (VIPs on lo; with L2 all on one switch)
                         │
                    lan ═╪═ lb     VIPs "here" on eth0, "away" without a route,
                         └─ other  "held" by it; "routed" on the subnet, held by nobody

Checks go by the data path (``via: dsr``): tcp at each place, icmp "here".

First, at the VIPs of backend-2: the service stopped, a firewall that drops and one that rejects,
the VIP gone; and the end of backend-3's tunnel is gone. Then backend-2 is off the network, and
backend-3 filters by strict reverse path.
"""

from __future__ import annotations

import pytest

from support.health_matrix import HealthMatrix
from support.health_names import AT_THE_VIP, PLACES, SERVICES, WHAT, Named
from support.packets import FAMILIES

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]  # the VM may be slow to set all up

ALL = {"backend-1", "backend-2", "backend-3"}
HEALTHY = ("healthy", "repaired", "repaired again")


@pytest.mark.parametrize("when", HEALTHY)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_backends_are_up(health_matrix: HealthMatrix, family: int, place: str, when: str) -> None:
    of = [named for named in SERVICES if (named.place, named.family) == (place, family)]
    assert len(of) == len(WHAT[place])
    for named in of:
        for backend in ALL:
            assert not health_matrix.wanted(when, named, backend)
            assert not health_matrix.amiss(when, named, backend)


@pytest.mark.parametrize("when", HEALTHY)
@pytest.mark.parametrize("family", FAMILIES)
def test_clients_are_served_by_all(health_matrix: HealthMatrix, family: int, when: str) -> None:
    answered = health_matrix.answered[when]
    found = {str(named): who for named, who in answered.items() if named.family == family}
    assert found == dict.fromkeys(found, ALL)
    assert len(found) == 5


def down(health_matrix: HealthMatrix, when: str, named: Named, backend: str) -> None:
    assert health_matrix.wanted(when, named, backend)
    assert not health_matrix.amiss(when, named, backend)


@pytest.mark.parametrize("place", ["here", "held"])
@pytest.mark.parametrize("what", AT_THE_VIP)
@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_vip(health_matrix: HealthMatrix, family: int, what: str, place: str) -> None:
    down(health_matrix, "first", Named(place, what, family), "backend-2")


@pytest.mark.parametrize("place", ["routed", "away"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_vip(health_matrix: HealthMatrix, family: int, place: str) -> None:
    down(health_matrix, "first", Named(place, "missing", family), "backend-2")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_vip_by_echo(health_matrix: HealthMatrix, family: int) -> None:
    down(health_matrix, "first", Named("here", "echo", family), "backend-2")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tunnels_end_that_is_missing(
    health_matrix: HealthMatrix, family: int, place: str
) -> None:
    for what in WHAT[place]:
        named = Named(place, what, family)
        if health_matrix.tunnel:
            down(health_matrix, "first", named, "backend-3")
        else:  # L2 has none, and nothing happened
            assert not health_matrix.amiss("first", named, "backend-3")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_strict_reverse_path_filter(health_matrix: HealthMatrix, family: int, place: str) -> None:
    """IPv6 has none, and by L2 packets come in where the way back leaves: these stay up."""
    for what in WHAT[place]:
        named = Named(place, what, family)
        matters = family == 4 and bool(health_matrix.tunnel)
        assert bool(health_matrix.wanted("second", named, "backend-3")) is matters
        assert not health_matrix.amiss("second", named, "backend-3")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_host_that_is_gone(health_matrix: HealthMatrix, family: int, place: str) -> None:
    for what in WHAT[place]:
        down(health_matrix, "second", Named(place, what, family), "backend-2")


@pytest.mark.parametrize("when", ["first", "second"])
def test_the_healthy_one_stays_up(health_matrix: HealthMatrix, when: str) -> None:
    for named in SERVICES:
        assert not health_matrix.wanted(when, named, "backend-1")
        assert not health_matrix.amiss(when, named, "backend-1")


@pytest.mark.parametrize("when", ["first", "second"])
@pytest.mark.parametrize("family", FAMILIES)
def test_clients_are_sent_to_backends_that_are_up(
    health_matrix: HealthMatrix, family: int, when: str
) -> None:
    answered = {n: who for n, who in health_matrix.answered[when].items() if n.family == family}
    assert len(answered) == 5
    for named, who in answered.items():
        assert who == health_matrix.up(when, named), named
        assert "backend-1" in who
        assert "backend-2" not in who
