"""A healthy backend is up, whatever the way to it, and wherever the VIP is.

::

    client-1 ── wan ── router ── far ── backend-1 … -3   (VIPs on lo; with L2 all on one switch)
                         │
                    lan ═╪═ lb     VIPs "here" on eth0, "away" without a route,
                         └─ other  "held" by it; "routed" on the subnet, held by nobody

Checks go by the data path (``via: dsr``): tcp at each place, icmp "here".
"""

from __future__ import annotations

import pytest

from support.health_matrix import HealthMatrix
from support.health_names import PLACES, SERVICES, WHAT
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
