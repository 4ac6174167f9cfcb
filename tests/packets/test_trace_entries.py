"""``tula trace`` and ``tula status`` tell what the tables hold.

::

    client-1             lb           backend-1 … 4
         │               │                │   (VIPs on lo)
    ═════╧═══════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

import pytest

from support.in_process import call_tula
from support.packets import FAMILIES, PROTOCOLS
from support.serving import Held, Serving
from tula.lab import wait_until

pytestmark = pytest.mark.kernel

HELD = "the table of connections holds this flow"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_flow_held_against_the_hash(serving: Serving, family: int, protocol: str) -> None:
    held = Held(serving)
    for name, weight in (("backend-1", 1), ("backend-2", 60000), ("backend-3", 0)):
        serving.web["backends"][name]["weight"] = weight
    serving.apply()
    mine = {p: name for (v, w, p), name in held.backends.items() if (v, w) == (family, protocol)}
    port = next(p for p, name in mine.items() if name != serving.by_hash(family, protocol, p))
    found = serving.trace(family, port, protocol)
    assert found == {
        "service": "web",
        "backend": mine[port],
        "reason": f"web takes port 80; {HELD}",
        "persistence": None,
    }
    # A new flow goes by hash; and what the configuration would do is another question.
    assert "maglev hashes" in serving.trace(family, 40000, protocol)["reason"]
    asked = serving.trace(family, port, protocol, "-f", serving.path)
    assert asked["backend"] == serving.by_hash(family, protocol, port) != mine[port]
    assert "maglev hashes" in asked["reason"]


@pytest.mark.parametrize("family", FAMILIES)
def test_200_of_200_entries_are_found(serving: Serving, family: int) -> None:
    """The key of every flow as the kernel makes it, and which backend took its turn."""
    serving.web["scheduler"] = "rr"
    serving.apply()
    flows = serving.connect(family, range(20000, 20200))
    udp = serving.udp(family, range(20000, 20200))
    named = {flow.source_port: serving.entry(family, "tcp", flow.source_port) for flow in flows}
    assert named == {flow.source_port: flow.backend for flow in flows}
    assert {port: serving.entry(family, "udp", port) for port in udp} == udp


def test_rr_cannot_be_foretold_and_a_live_flow_can(serving: Serving) -> None:
    serving.web["scheduler"] = "rr"
    serving.apply()
    assert serving.trace(4, 28000, "tcp")["backend"] is None
    (flow,) = serving.connect(4, [28000])
    assert serving.trace(4, 28000, "tcp")["backend"] == flow.backend


LEFT = ("backend-1", [4, "udp"])


def test_an_entry_of_a_backend_that_left(serving: Serving) -> None:
    held = Held(serving, 20)
    del serving.web["backends"]["backend-1"]
    serving.apply()
    # A flow of UDP: the late ACK of a TCP connection would be learned, by its hash.
    port = next(p for (*way, p), name in held.backends.items() if (name, way) == LEFT)
    found = serving.trace(4, port, "udp")
    assert found["backend"] == serving.by_hash(4, "udp", port)
    assert "maglev hashes" in found["reason"]


def test_status_counts_entries(serving: Serving) -> None:
    Held(serving, 50)
    size = {"size": 262144}
    flows = {f"{protocol}{family}": 50 for protocol in PROTOCOLS for family in FAMILIES}

    def counted() -> bool:
        """In a while: the kernel takes deleted entries away in the background."""
        use = serving.status()["connections"]
        return all(use[name] == {"entries": 50} | size for name in flows)

    wait_until(counted, what="50 entries in each table")
    shown = call_tula(serving.lb, "status").stdout
    assert "\nconnections: " in shown
    assert all(f"{name} 50 of 262144" in shown for name in flows)


def test_a_closed_connection_leaves_the_count(serving: Serving) -> None:
    for flow in serving.connect(4, range(29000, 29010)):
        flow.close(reset=True)
    wait_until(lambda: serving.status()["connections"]["tcp4"]["entries"] == 0, what="0 entries")
    assert serving.status()["connections"]["closed4"]["entries"] == 10
