"""``tula status`` counts what clients sent, packet by packet and byte by byte, through applies.

::

    client-1, -2            lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from socket import AF_INET, AF_INET6, SOCK_DGRAM
from typing import Any

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import address_of
from tula.lab import (
    Capture,
    Lab,
    Network,
    flat,
    serve_http,
    serve_udp,
    udp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel

PORTS = {"one": 5001, "two": 5002}
Count = Counter[str]
"""``packets`` and ``bytes``."""


class Ledger:
    """What was sent to whom, to compare with what Tula says."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self._tula = InProcess(network.lb)
        self._configuration = directory / "tula.yaml"
        self._sent: dict[str, dict[str, Count]] = {name: {} for name in PORTS}
        """By service, then by the host that answered."""
        self._port = 20000
        for backend in network.backends:
            serve_udp(backend, PORTS.values())

    def apply(self, **services: dict[str, Any]) -> None:
        """A configuration of these services."""
        self._tula.apply(write_config(self._configuration, services))

    def send(self, service: str, *sizes: int) -> None:
        """A datagram of each size to each VIP, each from a port of its own."""
        for vip in self.network.vips:
            for size in sizes:
                self._port += 1
                name = udp_ask(
                    *(self.network.client, vip, PORTS[service], self._port),
                    payload=bytes(size),
                )
                count = self._sent[service].setdefault(name, Counter())
                headers = 8 + (40 if ":" in vip else 20)
                count.update(packets=1, bytes=size + headers)

    def check(self) -> None:
        """Every listed service has counted what was sent to it, and each of its backends too."""
        hosts = {address_of(host, 4): host.name for host in self.network.backends}
        for name, service in self._tula.status().items():
            if name not in PORTS:
                assert not service["packets"]
                continue
            sent = self._sent[name]
            total = sum(sent.values(), Counter())
            assert (service["packets"], service["bytes"]) == (total["packets"], total["bytes"])
            for backend in service["backends"]:
                expected = sent.get(hosts[backend["address"][0]], Counter())
                counted = {what: backend[what] for what in ("packets", "bytes")}
                assert counted == {"packets": expected["packets"], "bytes": expected["bytes"]}

    def of(self, service: str, host: str) -> int:
        """Datagrams that the host answered for the service."""
        return self._sent[service].get(host, Counter())["packets"]


@pytest.fixture
def ledger(lab: Lab, tmp_path: Path) -> Ledger:
    return Ledger(flat(lab), tmp_path)


def udp(ledger: Ledger, name: str, backends: dict[str, Any]) -> dict[str, Any]:
    """The service of this name, with these backends."""
    return service_of(ledger.network, protocol="udp", ports=[PORTS[name]], backends=backends)


def test_services_that_share_backends_count_apart_and_exactly(ledger: Ledger) -> None:
    shared = backends_of(*ledger.network.backends)
    ledger.apply(one=udp(ledger, "one", shared), two=udp(ledger, "two", shared))
    ledger.check()
    ledger.send("one", *range(0, 1400, 70))
    ledger.check()
    ledger.send("two", *range(1, 1400, 140))
    ledger.check()
    told = json.loads(call_tula(ledger.network.lb, "status", "--json").stdout)["services"]
    assert [(service["name"], service["packets"]) for service in told] == [("one", 40), ("two", 20)]
    for name in PORTS:
        assert all(ledger.of(name, host) for host in shared), "every backend had some"


def test_tcp_counts_are_what_came_in_at_the_balancer(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    call_tula(network.lb, "apply", "-f", configuration)
    for backend in network.backends:
        serve_http(backend)
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(300_000))
    with Capture(network.lb) as capture:
        for host in (network.vip4, f"[{network.vip6}]"):
            for _ in range(5):
                network.client.run(
                    ["curl", "-sSf", "-HExpect:", "-T", upload, f"http://{host}/upload"]
                )
        macs = {bytes.fromhex(backend.mac().replace(":", "")) for backend in network.backends}

        def web() -> Any:
            (found,) = json.loads(call_tula(network.lb, "status", "--json").stdout)["services"]
            return found

        def seen(outgoing: bool) -> list[bytes]:
            frames = [f for f in capture.frames(outgoing=outgoing) if is_tcp(f)]
            return [f for f in frames if f[:6] in macs] if outgoing else frames

        # A connection's last acknowledgement comes after curl has ended.
        wait_until(
            lambda: web()["packets"] == len(seen(False)) == len(seen(True)),
            what="as many packets counted as came in and went out",
        )
        counted, came = web(), seen(False)
    assert counted["packets"] == len(came)
    assert counted["bytes"] == sum(len(frame) - 14 for frame in came) > 10 * 300_000
    for key in ("packets", "bytes"):
        assert counted[key] == sum(backend[key] for backend in counted["backends"])


def is_tcp(frame: bytes) -> bool:
    """Whether the frame carries TCP, without options or extension headers before it."""
    return frame[12:14] + frame[23:24] == b"\x08\x00\x06" or (
        frame[12:14] + frame[20:21] == b"\x86\xdd\x06"
    )


def test_counts_survive_applies(ledger: Ledger) -> None:
    network = ledger.network
    one, two, three = network.backends
    sizes = (10, 20, 30, 40, 50, 60, 70, 80)
    other = udp(ledger, "two", backends_of(one, two, three))

    def step(**backends: Any) -> None:
        """Applies the service with these backends; counts stand, and go on from there."""
        ledger.apply(one=udp(ledger, "one", backends), two=other)
        ledger.check()
        ledger.send("one", *sizes)
        ledger.send("two", *sizes)
        ledger.check()

    step(**backends_of(one, two))
    step(**backends_of(one, two, three))
    step(**backends_of(one, three), renamed=backends_of(two)[two.name])
    before = ledger.of("one", two.name)
    assert before, "the one that leaves has a count"
    step(**backends_of(one, three))
    assert ledger.of("one", two.name) == before
    step(**backends_of(one), **backends_of(three, weight=1))
    step(**backends_of(three, two))  # back again: it goes on from what it had
    assert ledger.of("one", two.name) > before


def test_counts_move_to_a_larger_map_and_survive_a_service_that_leaves(ledger: Ledger) -> None:
    network = ledger.network
    real = backends_of(*network.backends)
    both = {name: udp(ledger, name, real) for name in PORTS}
    ledger.apply(**both)
    ledger.send("one", *range(0, 1400, 70))
    ledger.send("two", *range(0, 1400, 140))
    assert {"nexthop4_1024", "nexthop6_1024"} <= maps(network)
    network.lb.add_address("eth0", "10.50.0.1/16", "fd50::1/64")
    many = {
        f"far-{n}": {"address": [f"10.50.{n >> 8}.{n & 255}", f"fd50::{n:x}"]}
        for n in range(2, 1102)
    }
    ledger.apply(**both, far=service_of(network, protocol="udp", ports=[9], backends=many))
    assert {"nexthop4_1024", "nexthop6_1024"}.isdisjoint(maps(network)), "they were too small"
    ledger.check()
    ledger.send("one", 1, 2, 3)
    ledger.check()
    ledger.apply(two=both["two"])
    ledger.check()
    ledger.send("two", 1, 2, 3)
    ledger.check()


def maps(network: Network) -> set[str]:
    """Names of the maps in Tula's table."""
    listed = network.lb.run(["nft", "-t", "list", "table", "netdev", "tula"]).stdout
    return {line.split()[1] for line in listed.splitlines() if line.strip().startswith("map ")}


def ask_in_vain(network: Network, port: int, count: int) -> None:
    """So many datagrams to each VIP, which nobody answers."""
    for vip in network.vips:
        with network.client.socket(AF_INET6 if ":" in vip else AF_INET, SOCK_DGRAM) as asking:
            for _ in range(count):
                asking.sendto(b"?", (vip, port))


def test_what_no_backend_takes_is_counted_by_service(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1)
    lb, first = network.lb, network.backends[0]
    services = {
        "served": service_of(network, protocol="udp", ports=[5001], backends=backends_of(first)),
        "drained": service_of(
            network, protocol="udp", ports=[5002], backends=backends_of(first, weight=0)
        ),
        "lost": service_of(network, protocol="udp", ports=[5003], backends=backends_of(first)),
    }
    serve_udp(first, [5001])
    call_tula(lb, "apply", "-f", write_config(tmp_path / "tula.yaml", services))
    # As at the moment when a backend has left, and flows still have its id.
    for family in (4, 6):
        listed = lb.run(["nft", "list", "map", "netdev", "tula", f"nexthop{family}_1024"]).stdout
        (mark,) = re.findall(r'(0x[0-9a-f]+)[^,]* comment "lost"', listed)
        lb.run(["nft", f"delete element netdev tula nexthop{family}_1024 {{ {mark} }}"])
    for vip in network.vips:
        udp_ask(network.client, vip, 5001)
    ask_in_vain(network, 5002, 3)
    ask_in_vain(network, 5003, 2)

    def counted() -> bool:
        status = json.loads(call_tula(lb, "status", "--json").stdout)
        found = {service["name"]: service["no_backend"] for service in status["services"]}
        total = status["counters"]["no_backend"]["packets"]
        return (found, total) == ({"served": 0, "drained": 6, "lost": 4}, 10)

    wait_until(counted, what="what came for nobody")
