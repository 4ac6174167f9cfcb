"""Draining a backend of a running daemon: nothing new, nothing cut, told when it is empty.

::

    client-1, -2            lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import vip_of
from support.running import Running
from tula.lab import Lab, Network, TcpFlow, ask_all, flat, flows, serve_tcp, tcp_flows
from tula.lab.wait import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, backends=3)
        for backend in made.backends:
            serve_tcp(backend, [80])
        yield made


@pytest.fixture
def daemon(network: Network, tmp_path: Path) -> Iterator[Running]:
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    with Running(network.lb, configuration) as running:
        yield running
    call_tula(network.lb, "clear")


@pytest.fixture
def opened(network: Network, daemon: Running) -> Iterator[list[TcpFlow]]:
    """Connections, from before the drain; the daemon is there first."""
    assert daemon.states()
    made = tcp_flows(network.client, vip_of(network, 4), 80, range(30000, 30060))
    yield made
    for flow in made:
        flow.close(reset=True)


_ports = iter(range(40000, 60000, 60))


def new_ones(network: Network) -> set[str]:
    """Who answers new flows: from ports that no flow had before, which the table may still hold."""
    first = next(_ports)
    found = flows(network.client, vip_of(network, 4), 80, range(first, first + 60), "tcp")
    return set(found.values())


def test_a_drain_cuts_nothing_and_tells_when_it_is_empty(
    network: Network, daemon: Running, opened: list[TcpFlow]
) -> None:
    before = ask_all(opened)
    held = [flow for flow in opened if before[flow.source_port] == "backend-2"]
    assert held
    call_tula(network.lb, "drain", "web/backend-2")
    assert daemon.states()["web/backend-2"] == "draining"
    assert new_ones(network) == {"backend-1", "backend-3"}
    assert ask_all(opened) == before, "what was there goes on"

    def remaining() -> int | None:
        found: int | None = daemon.backends()["web/backend-2"]["connections"]
        return found

    wait_until(lambda: remaining() == len(held), 60, "the count of what remains")
    for flow in held:
        flow.close(reset=True)
    wait_until(lambda: remaining() == 0, 60, "the last connection's end")
    wait_until(
        lambda: any(
            (event["kind"], event["subject"]) == ("drain-ended", "web/backend-2")
            for event in daemon.events()
        ),
        15,
        "the event",
    )
    call_tula(network.lb, "undrain", "web/backend-2")
    assert daemon.states()["web/backend-2"] == "unknown"
    assert new_ones(network) == {"backend-1", "backend-2", "backend-3"}


def test_a_drain_with_a_deadline_ends_there(
    network: Network, daemon: Running, opened: list[TcpFlow]
) -> None:
    before = ask_all(opened)
    call_tula(network.lb, "drain", "web/backend-2", "--deadline", "1s")
    daemon.wait_for(backend_2="disabled")
    moved = [flow for flow in opened if before[flow.source_port] == "backend-2"]
    kept = [flow for flow in opened if before[flow.source_port] != "backend-2"]
    assert ask_all(kept) == {port: name for port, name in before.items() if name != "backend-2"}
    assert moved
    assert new_ones(network) == {"backend-1", "backend-3"}
    # To enable it does not end the drain, which is told with its end; that ends it.
    said = call_tula(network.lb, "enable", "web/backend-2").stdout
    assert said == (
        "web/backend-2: was not disabled, but still drained, and the drain's deadline has passed; "
        "to end that: tula undrain web/backend-2\n"
    )
    assert new_ones(network) == {"backend-1", "backend-3"}
    said = call_tula(network.lb, "undrain", "web/backend-2").stdout
    assert said == "web/backend-2: no longer draining; gets new connections\n"
    assert new_ones(network) == {"backend-1", "backend-2", "backend-3"}
    kinds = [e["kind"] for e in daemon.events() if e["subject"] == "web/backend-2"]
    assert kinds[-3:] == ["drained", "drain-ended", "undrained"]


def test_disable_is_at_once_and_lasts_over_a_restart(network: Network, daemon: Running) -> None:
    call_tula(network.lb, "disable", "web/backend-1")
    call_tula(network.lb, "weight", "web/backend-2", "0")
    assert new_ones(network) == {"backend-3"}
    daemon.kill()
    assert new_ones(network) == {"backend-3"}, "the kernel goes on without the daemon"
    daemon.start()
    assert daemon.states() == {
        "web/backend-1": "disabled",
        "web/backend-2": "draining",
        "web/backend-3": "unknown",
    }
    assert new_ones(network) == {"backend-3"}
    call_tula(network.lb, "enable", "web/backend-1")
    call_tula(network.lb, "weight", "web/backend-2", "document")
    assert new_ones(network) == {"backend-1", "backend-2", "backend-3"}
