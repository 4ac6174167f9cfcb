"""Checks that say more than up or down: an agent's weight, and a drain by 404.

::

    client-1            lb  VIP 10.9.0.100               backend-1, -2   (VIPs on lo)
        │                │                                   │  service 80, check 8080, agent 5555
    ════╧════════════════╧═══════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import vip_of
from support.running import Running
from tula.lab import Lab, Network, ask_all, flat, flows, serve_tcp, tcp_flows
from tula.lab.servers import StreamServer
from tula.lab.wait import wait_until

pytestmark = pytest.mark.kernel

HEALTH = {
    "interval": "200ms",
    "timeout": "3s",
    "fall": 1000,
    "checks": [
        {"type": "http", "port": 8080, "via": "direct", "drain_on": 404},
        {"type": "agent", "port": 5555},
    ],
}


class Saying(StreamServer):
    """Answers every connection with a text; with none, keeps still."""

    text = ""

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.requests += 1
        if self.text:
            writer.write(self.text.encode())
        await reader.read()


def answers(server: Saying, status: int) -> None:
    server.text = f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n"


_ports = count(20000, 100)


def shares(network: Network) -> Counter[str]:
    """Who answers 100 new flows."""
    first = next(_ports)
    vip = vip_of(network, 4)
    return Counter(flows(network.client, vip, 80, range(first, first + 100), "tcp").values())


@pytest.fixture
def network() -> Iterator[Network]:
    with Lab() as lab:
        yield flat(lab, clients=1, backends=2)


def test_an_agent_lowers_a_weight_and_404_drains(network: Network, tmp_path: Path) -> None:
    checks, agents = [], []
    for backend in network.backends:
        serve_tcp(backend, [80])
        checks.append(backend.owns(Saying(backend, [8080], None).start()))
        agents.append(backend.owns(Saying(backend, [5555], None).start()))
        answers(checks[-1], 200)
    web = service_of(network, scheduler="wrr", health=HEALTH)
    configuration = write_config(tmp_path / "tula.yaml", {"web": web})
    with Running(network.lb, configuration) as daemon:
        daemon.wait_for(backend_1="up", backend_2="up")
        assert 45 <= shares(network)["backend-2"] <= 55

        # The first agent never says a word, which nobody minds; the second one is loaded.
        agents[1].text = "up 25%\n"
        daemon.wait_for_reason("web/backend-2", "its agent says 25%")
        found = daemon.backends()["web/backend-2"]
        assert (found["weight"], found["effective_weight"], found["state"]) == (100, 25, "up")
        assert 15 <= shares(network)["backend-2"] <= 25
        call_tula(network.lb, "weight", "web/backend-2", "100")
        assert daemon.backends()["web/backend-2"]["reason"].endswith("but the operator 100")
        assert 45 <= shares(network)["backend-2"] <= 55
        call_tula(network.lb, "weight", "web/backend-2", "configured")

        opened = tcp_flows(network.client, vip_of(network, 4), 80, range(40000, 40040))
        before = ask_all(opened)
        assert set(before.values()) == {"backend-1", "backend-2"}
        last = daemon.events()[-1]["number"]
        answers(checks[0], 404)
        found = daemon.wait_for(backend_1="draining")["web/backend-1"]
        assert found["reason"] == "drains: its check answered 404"
        assert shares(network) == {"backend-2": 100}
        assert ask_all(opened) == before, "what was there goes on"
        events = [e for e in daemon.events() if e["number"] > last]
        assert [(e["kind"], e["subject"], e["evidence"]) for e in events] == [
            ("drained", "web/backend-1", "drains: its check answered 404")
        ]

        # The next daemon knows, before its checks have an answer, what this one was told.
        remembered = daemon.state / "advice.json"
        wait_until(lambda: remembered.exists() and "404" in remembered.read_text(), 60, "the file")
        for server in (*checks, *agents):
            server.text = ""
        daemon.kill()
        daemon.start()
        assert daemon.states()["web/backend-1"] == "draining"
        assert daemon.backends()["web/backend-2"]["effective_weight"] == 25
        assert shares(network) == {"backend-2": 100}
        assert ask_all(opened) == before

        for server in checks:
            answers(server, 200)
        daemon.wait_for(backend_1="up", backend_2="up")
        assert 75 <= shares(network)["backend-1"] <= 85
        assert ask_all(opened) == before

        agents[1].text = "maint\n"
        daemon.wait_for(backend_2="disabled")
        assert shares(network) == {"backend-1": 100}
        agents[1].text = "ready 100%\n"
        daemon.wait_for(backend_2="up")
        assert 45 <= shares(network)["backend-2"] <= 55
        for flow in opened:
            flow.close(reset=True)
