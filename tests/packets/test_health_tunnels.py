"""Health by a kind of tunnel that other kernels lack: what depends on the tunnel, in a minute.

The network and what happens are those of test_health_matrix.py, which does all of it by L2 and
VXLAN. Firewalls at the VIP are left out here: that packets arrive, and which error comes back where
the tunnel's end is gone, is what differs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.health_matrix import HealthMatrix
from support.health_names import SERVICES
from support.tunnelled import LINK_KINDS
from tula.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]

BY_PLACE = [
    named
    for named in SERVICES
    if named.what in ("missing", "echo") or (named.place, named.what) == ("here", "stopped")
]
"""Tcp at each place of a VIP, and icmp; both IP versions. The first VIP is one that stays: backends
have it on the tunnels' ends, too."""


@pytest.mark.link_kinds(*LINK_KINDS["ipip", 4])
def test_what_goes_wrong_is_named_and_clients_go_to_the_others(lab: Lab, tmp_path: Path) -> None:
    matrix = HealthMatrix(lab, tmp_path, "ipip", 4, BY_PLACE)
    matrix.run()
    amiss = {when: matrix.all_amiss(when) for when in matrix.seen}
    assert not any(amiss.values()), amiss
    for when in matrix.seen:
        answered = matrix.answered[when]
        assert len(answered) == 6
        assert answered == {named: matrix.up(when, named) for named in answered}
    serving = {when: {len(matrix.up(when, each)) for each in BY_PLACE} for when in matrix.seen}
    wanted = {
        "healthy": {3},
        "first": {1},
        "repaired": {3},
        "second": {1, 2},
        "repaired again": {3},
    }
    assert serving == wanted
