"""Slow clients and floods of connections keep neither other clients nor the daemon from anything.

::

    client-1 (attacks)   client-2        lb  api: 10.9.0.2:8420       backend-1, -2
        │                   │             │   metrics: 127.0.0.1:9420      │
    ════╧═══════════════════╧═════════════╧══════════════════════════════╧═════  lan
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from support.lab_configurations import service_of, write_config
from support.network_api import Api, context, make_token
from support.running import Running
from tula.lab import Lab, Network, flat, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

CUT = """
add table inet cut
add chain inet cut in { type filter hook input priority 0; }
add rule inet cut in tcp dport 80 reject with tcp reset
"""
SLOW = 660
"""More than one address may have without an accepted token."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        yield flat(lab, clients=2, backends=2)


@pytest.fixture(scope="module")
def running(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    serve_tcp(network.backends[0], [80])
    serve_tcp(network.backends[1], [80])
    health = {"type": "tcp", "interval": "200ms", "timeout": "2s"}
    path = write_config(
        tmp_path_factory.mktemp("floods") / "tula.yaml",
        {"web": service_of(network, health=health)},
        api={"listen": "0.0.0.0:8420"},
        metrics={"listen": "0.0.0.0:9420"},
    )
    with Running(network.lb, path) as made:
        made.wait_for(backend_1="up", backend_2="up")
        yield made


@pytest.fixture(scope="module")
def api(network: Network, running: Running) -> Api:
    own = [each for each in network.lb.addresses("eth0") if each not in network.vips]
    address = next(each for each in own if "." in each)
    made = Api(network.clients[1], address, token=make_token(running.state, "reader", "read"))
    wait_until(lambda: running.status()["daemon"]["network"]["fingerprint"], 60.0, "TLS")
    return made


@contextlib.contextmanager
def attacking(work: Callable[[], object]) -> Iterator[None]:
    """Does it over and over in a thread, whatever comes of it."""
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            with contextlib.suppress(OSError):
                work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(60)


@pytest.mark.parametrize("how", ["silent", "half a head", "half a handshake", "flood"])
def test_another_client_is_answered_and_failover_goes_on(
    network: Network, running: Running, api: Api, how: str
) -> None:
    attacker, held = replace(api, host=network.clients[0]), list[socket.socket]()

    def connect() -> None:
        if len(held) == SLOW:
            time.sleep(0.05)
            return
        opened = attacker.connect()
        if how == "flood":
            opened.close()
            return
        if how == "half a head":
            opened = context().wrap_socket(opened)
            opened.sendall(b"GET /api/v1/status HTTP/1.1\r\nX: ")
        elif how == "half a handshake":
            opened.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        held.append(opened)

    with attacking(connect):
        wait_until(lambda: how == "flood" or len(held) == SLOW, 120.0, "an attack")
        # From the attacker's own address too, unless it is used up: older connections make room.
        own = [] if how == "flood" else [attacker]
        for client in (api, replace(api, port=9420, tls=False), *own):
            path = "/metrics" if client.port == 9420 else "/api/v1/status"
            assert client.ask("GET", path).status == 200
        network.backends[1].run(["nft", CUT])
        running.wait_for(backend_1="up", backend_2="down")
        assert json.loads(api.ask("GET", "/api/v1/status").body)["services"]
        network.backends[1].run(["nft", "delete table inet cut"])
        running.wait_for(backend_1="up", backend_2="up")
    for opened in held:
        opened.close()
    wait_until(lambda: connections(api) < 10, 60.0, "an end of the attack's connections")


def connections(api: Api) -> float:
    own = replace(api, port=9420, tls=False).ask("GET", "/metrics").body.decode()
    return float(own.partition("\ntula_api_connections ")[2].split()[0])


def test_events_reach_many_clients_by_one_stream_and_resume(running: Running, api: Api) -> None:
    drain = "/services/web/backends/backend-1/"
    request = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: lb\r\nAuthorization: Bearer {api.token}"

    def follow(last: str = "") -> tuple[socket.socket, Any]:
        opened = api.secure()
        resumed = f"\r\nLast-Event-ID: {last}" if last else ""
        opened.sendall(f"{request}{resumed}\r\n\r\n".encode())
        file = opened.makefile("rb")
        assert b" 200 " in file.readline()
        return opened, file

    def until(file: Any, kind: str) -> tuple[list[str], list[str]]:
        """The ids and kinds of events up to one of this kind."""
        ids, kinds = [], []
        while kind not in kinds:
            line = file.readline().decode()
            assert line, "the stream ended"
            if line.startswith("id: "):
                ids.append(line[4:].strip())
            if line.startswith("data: "):
                kinds.append(json.loads(line[6:])["kind"])
        return ids, kinds

    followers = [follow() for _ in range(50)]
    wait_until(lambda: streams(api) == 50, 60.0, "all of them")
    first = followers[0][1]
    while not first.readline().startswith(b"id: "):
        pass  # where it begins
    running.client().send("POST", f"{drain}drain", {"deadline": None})
    seen = [until(file, "drained") for _, file in followers]
    last = seen[0][0][-1]
    assert {ids[-1] for ids, _ in seen} == {last}
    for opened, _ in followers:
        opened.close()
    running.client().send("POST", f"{drain}undrain")
    running.client().send("POST", f"{drain}disable")
    running.client().send("POST", f"{drain}enable")
    opened, file = follow(last)
    _, kinds = until(file, "enabled")
    assert [kind for kind in kinds if not kind.startswith("backend")] == [
        "undrained",
        "disabled",
        "enabled",
    ]
    opened.close()
    # An epoch that was never: what is not there is told.
    opened, file = follow("nowhere:7")
    lines = [file.readline() for _ in range(12)]
    assert b"event: gap\n" in [line.replace(b"\r", b"") for line in lines]
    opened.close()


def streams(api: Api) -> float:
    own = replace(api, port=9420, tls=False).ask("GET", "/metrics").body.decode()
    return float(own.partition("\ntula_api_event_streams ")[2].split()[0])
