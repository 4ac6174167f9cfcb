"""``tula trace --fragment`` against the kernel.

::

    client-1               lb                 backend-1, -2   VIP:53  "one"
        │                   │                 backend-3, -4   VIP:54  "two"
    ════╧═══════════════════╧═══════════════════════╧═════════════════════  lan
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.crafted import wait_arrivals
from support.in_process import call_tula
from support.packets import FAMILIES, address_of, vip_of, watching
from support.two_services import PORTS, WAYS, TwoServices, two_services
from tula.lab import Lab

pytestmark = pytest.mark.kernel


@pytest.fixture(params=WAYS)
def balanced(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> TwoServices:
    return TwoServices(two_services(lab), tmp_path, **WAYS[request.param])


@pytest.mark.parametrize("family", FAMILIES)
def test_trace_tells_where_a_datagrams_fragments_go(balanced: TwoServices, family: int) -> None:
    crafted, vip = balanced.crafted, vip_of(balanced.network, family)
    whole = crafted.udp(family, 40004, 53, b"traced" * 300)
    with watching(*balanced.network.backends) as watch:
        crafted.send(*crafted.pieces(family, whole, 0x1F, [1000]))
        (arrived,) = wait_arrivals(watch, balanced.network.backends, b"traced" * 50, 2)

    def trace(number: str, port: int) -> dict[str, str]:
        target, client = f"{vip}:{port}", f"{address_of(crafted.client, family)}:40004"
        if family == 6:
            target, client = f"[{vip}]:{port}", f"[{address_of(crafted.client, 6)}]:40004"
        asked = ("trace", target, "--client", client, "--protocol", "udp", "--json")
        found: dict[str, str] = json.loads(
            call_tula(crafted.lb, *asked, "--fragment", number).stdout
        )
        return found

    for port in PORTS.values():
        found = trace("0x1f", port)
        assert (found["service"], found["backend"]) == ("one", arrived)
    unseen = trace("32", 53)
    assert (unseen["service"], unseen["backend"]) == ("one", None)
    assert "goes on to the host" in unseen["reason"]
