"""Flows whose backend goes or is drained, and connections that are silent for long.

::

    client-1             lb           backend-1 … 4
         │               │                │   (VIPs on lo)
    ═════╧═══════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

import pytest

from support.entries import entries4
from support.lab_configurations import backends_of
from support.packets import FAMILIES
from support.serving import ALL_TCP, Held, Serving, broken, silent
from tula.lab import (
    TcpFlow,
    wait_until,
)

pytestmark = pytest.mark.kernel


def of_backend(held: Held, name: str, protocol: str) -> list[tuple[int, int]]:
    """IP version and port of the flows that it answers."""
    flows = held.backends.items()
    return [(family, port) for (family, p, port), who in flows if (who, p) == (name, protocol)]


def flow_of(held: Held, family: int, port: int) -> TcpFlow:
    return next(flow for flow in held.tcp[family] if flow.source_port == port)


def remove(serving: Serving, name: str) -> None:
    del serving.web["backends"][name]
    serving.apply()


def test_a_removed_backends_udp_flows_are_answered_by_another_from_the_next_packet_on(
    serving: Serving,
) -> None:
    held = Held(serving)
    gone = of_backend(held, "backend-1", "udp")
    assert len(gone) > 20
    remove(serving, "backend-1")
    # One datagram a flow, and each has its answer.
    for family in FAMILIES:
        answers = serving.udp(family, [port for version, port in gone if version == family])
        assert set(answers.values()) == {"backend-2", "backend-3"}
        for (version, protocol, port), name in held.backends.items():
            if (version, protocol) == (family, "udp") and name != "backend-1":
                answers[port] = serving.udp(family, [port])[port]
                assert answers[port] == name, "the others' flows stay"
    # It comes back: nobody's flow moves.
    now = {family: serving.udp(family, range(20000, 20060)) for family in FAMILIES}
    serving.web["backends"] |= backends_of(serving.network.backend("backend-1"))
    serving.apply()
    assert now == {family: serving.udp(family, range(20000, 20060)) for family in FAMILIES}


def test_a_removed_backends_connections_are_reset_at_once_and_the_others_stay(
    serving: Serving,
) -> None:
    held = Held(serving)
    gone = of_backend(held, "backend-1", "tcp")
    remove(serving, "backend-1")
    for family, port in gone:
        assert "reset by peer" in broken(flow_of(held, family, port))
    stay = [key for key, name in held.backends.items() if name != "backend-1" and key[1] == "tcp"]
    assert all(flow_of(held, f, port).ask() == held.backends[f, p, port] for f, p, port in stay)
    # Back again: it takes nothing from those who stayed, and who comes anew may get it.
    serving.web["backends"] |= backends_of(serving.network.backend("backend-1"))
    serving.apply()
    assert all(flow_of(held, f, port).ask() == held.backends[f, p, port] for f, p, port in stay)


def test_a_silent_connection_finds_its_backend_again_when_that_comes_back(
    serving: Serving,
) -> None:
    held = Held(serving)
    # Silent also by its late acknowledgements of what it was answered.
    with silent(serving.client, ALL_TCP):
        remove(serving, "backend-1")
        serving.web["backends"] |= {"new": backends_of(serving.network.backends[3])["backend-4"]}
        serving.apply()
        serving.web["backends"] |= backends_of(serving.network.backend("backend-1"))
        serving.apply()
    assert held.answers() == held.backends


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("how", ["removed", "drained", "removed-with-reset"])
def test_a_client_that_uses_its_port_again_is_served_at_once(
    serving: Serving, family: int, how: str
) -> None:
    opened = serving.connect(family, range(21000, 21040))
    gone = [flow for flow in opened if flow.backend == "backend-1"]
    assert gone
    if how == "drained":
        serving.web["backends"]["backend-1"]["weight"] = 0
        serving.apply()
    else:
        remove(serving, "backend-1")
    for flow in gone:
        if how == "removed-with-reset":
            flow.close(reset=True)
            continue
        with silent(serving.client):
            flow.close(reset=True)
    again = serving.connect(family, [flow.source_port for flow in gone])
    assert {flow.backend for flow in again} <= {"backend-2", "backend-3"}
    assert {flow.ask() for flow in again} <= {"backend-2", "backend-3"}


def test_an_idle_connection_outlives_every_short_timeout_and_a_change_of_weights(
    serving: Serving,
) -> None:
    serving.configuration["connections"] = {"tcp_half_open": "1s", "udp": "1s", "tcp": "2h"}
    serving.apply()
    held = Held(serving)
    # The UDP flows' entries are gone once the short timeouts have passed.
    wait_until(lambda: not entries4(serving.lb, "udp4"), 60, "the end of the UDP flows")
    assert len(entries4(serving.lb, "tcp4")) == 60
    serving.web["backends"]["backend-1"]["weight"] = 0
    serving.web["backends"]["backend-2"]["weight"] = 7
    serving.apply()
    for (family, protocol, port), name in held.backends.items():
        if protocol == "tcp":
            assert flow_of(held, family, port).ask() == name
