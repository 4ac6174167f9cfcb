"""``udp_scheduling: packet``: one sender's packets are spread, whatever flow they are of.

::

    client-1 (one socket)      lb           backend-1, -2   (VIPs on lo)
         │                     │                │
    ═════╧═════════════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from support.serving import Serving
from support.tunnelled import Tunnelled
from tula.lab import Host, Lab, Network, ask_all, flat, serve_udp, wait_until

pytestmark = pytest.mark.kernel

EACH = {"protocol": "udp", "scheduler": "rr", "udp_scheduling": "packet"}
WHOLE, IN_FRAGMENTS = 100, 4000


@contextmanager
def one_sender(client: Host, vip: str) -> Iterator[socket.socket]:
    """A socket from which all datagrams are of one flow."""
    kind = socket.AF_INET6 if ":" in vip else socket.AF_INET
    with client.socket(kind, socket.SOCK_DGRAM) as opened:
        opened.settimeout(30.0)
        opened.connect((vip, 80))
        yield opened


def ask(asking: socket.socket, size: int = WHOLE) -> str:
    """Who answers one datagram; its content must come back whole."""
    payload = random.Random(size).randbytes(size)
    asking.send(payload)
    name, _, back = asking.recv(65535).partition(b" ")
    assert back == payload
    return name.decode()


def assert_in_turn(answers: list[str]) -> None:
    """Two backends, one after the other."""
    assert set(answers[:2]) == {"backend-1", "backend-2"}
    assert answers == answers[:2] * (len(answers) // 2)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, backends=2)
        for backend in made.backends:
            serve_udp(backend, [80])
        yield made


@contextmanager
def sending(asking: socket.socket) -> Iterator[None]:
    """A sender that never stops, and does not listen."""
    end = threading.Event()

    def send() -> None:
        while not end.wait(0.01):
            with suppress(OSError):
                asking.send(b"line")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_one_sender_for_ever_is_spread_and_a_drain_ends(network: Network, tmp_path: Path) -> None:
    """Case 12: by the daemon, and a drained backend gets nothing more at once."""
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network, **EACH)})
    with Running(network.lb, configuration) as daemon:
        assert daemon.states()
        for family in FAMILIES:
            vip = vip_of(network, family)
            with one_sender(network.client, vip) as asking:
                assert_in_turn([ask(asking) for _ in range(40)])
                # All of a datagram's fragments go to one of them, and the next to the other.
                assert_in_turn([ask(asking, IN_FRAGMENTS) for _ in range(10)])
        with one_sender(network.client, vip_of(network, 4)) as asking:
            with sending(asking):
                drained = call_tula(network.lb, "drain", "web/backend-1", "--wait")
            assert "backend-1" in drained.stdout
        for family in FAMILIES:
            with one_sender(network.client, vip_of(network, family)) as asking:
                assert {ask(asking) for _ in range(10)} == {"backend-2"}
                assert {ask(asking, IN_FRAGMENTS) for _ in range(4)} == {"backend-2"}
        backends = daemon.backends()
        assert {each["connections"] for each in backends.values()} == {0}
    call_tula(network.lb, "clear")


def test_it_needs_no_connection_table(network: Network, tmp_path: Path) -> None:
    backends = backends_of(network.backends[0], weight=300) | backends_of(network.backends[1])
    keys = {**EACH, "scheduler": "wrr", "backends": backends}
    with Serving(network, tmp_path / "tula.yaml", **keys) as serving:
        serving.configuration["connections"] = {"enabled": False}
        serving.apply()
        for family in FAMILIES:
            with one_sender(network.client, vip_of(network, family)) as asking:
                counted = Counter(ask(asking) for _ in range(40))
                assert counted == {"backend-1": 30, "backend-2": 10}
                assert ask(asking, IN_FRAGMENTS)
        serving.start_over()


def test_a_live_flow_is_spread_from_the_change_on(serving: Serving) -> None:
    """A flow that was hot is not for a moment; TCP of the same service keeps its backends."""
    serving.web["scheduler"] = "rr"
    # Has the rule for hot flows of UDP stay.
    serving.configuration["services"]["other"] = serving.service(ports=[81])
    serving.apply()
    connected = serving.connect(4, range(41000, 41010))
    before = ask_all(connected)
    vip = vip_of(serving.network, 4)
    with one_sender(serving.client, vip) as asking:
        assert len({ask(asking) for _ in range(12)}) == 1
        serving.web["udp_scheduling"] = "packet"
        serving.apply()
        assert Counter(ask(asking) for _ in range(12)) == {f"backend-{n}": 4 for n in (1, 2, 3)}
        port = asking.getsockname()[1]
        traced = serving.trace(4, port, "udp")
        assert traced["backend"] is None
        assert "rr chooses for each packet anew" in traced["reason"]
        assert len(before) == 10
        assert ask_all(connected) == before
        del serving.web["udp_scheduling"]
        serving.apply()
        assert len({ask(asking) for _ in range(12)}) == 1


def test_packets_of_a_tunnel_are_spread_too(tmp_path: Path) -> None:
    with Lab() as lab:
        tunnelled = Tunnelled(lab, tmp_path, "vxlan", 4)
        tunnelled.web.update(EACH, ports=[80])
        tunnelled.apply()
        tunnelled.prepare()
        tunnelled.serve()
        for family in FAMILIES:
            with one_sender(tunnelled.client, vip_of(tunnelled.network, family)) as asking:
                wait_until(lambda asking=asking: ask(asking), what="an answer")
                assert_in_turn([ask(asking) for _ in range(20)])
                assert_in_turn([ask(asking, IN_FRAGMENTS) for _ in range(6)])
