"""A daemon that starts: it adopts what is right, restores what is gone, takes over what is older.

::

    client-1, -2            lb               backend-1 … 3
         │                  │                     │   (VIPs on lo)
    ═════╧══════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from support import udp_load
from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.queues import queue_drops
from support.running import Running
from support.snapshots import generation, observe, pieces, snapshot
from tula.cli.client import backend_path
from tula.dataplane.nft.schema import SCHEMA, schema_counter, schema_of
from tula.lab import (
    Capture,
    Host,
    Lab,
    Network,
    TcpFlow,
    ask_all,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_flows,
    wait_until,
)

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
UDP_PORTS, TCP_PORTS = range(31000, 31040), range(32000, 32040)
TABLE = "netdev tula"
STREAMED = 9000


@pytest.fixture
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, backends=3)
        for backend in made.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        yield made


@pytest.fixture
def daemon(network: Network, tmp_path: Path) -> Running:
    """Not started. Taking turns: a flow whose entry is lost would be chosen anew."""
    keys: dict[str, Any] = {"protocol": ["tcp", "udp"], "scheduler": "rr"}
    web = service_of(network, ports=[80, STREAMED], health=QUICK, **keys)
    return Running(network.lb, write_config(tmp_path / "tula.yaml", {"web": web}))


class Flows:
    """TCP connections and UDP flows of both IP versions, and who answered them."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.tcp: dict[int, list[TcpFlow]] = {
            family: tcp_flows(network.client, vip_of(network, family), 80, TCP_PORTS)
            for family in FAMILIES
        }
        self.before = self.answers()

    def answers(self) -> dict[tuple[int, str], dict[int, str]]:
        found = {(family, "tcp"): ask_all(opened) for family, opened in self.tcp.items()}
        for family in FAMILIES:
            vip = vip_of(self.network, family)
            found[family, "udp"] = flows(self.network.client, vip, 80, UDP_PORTS, "udp")
        return found


def all_up(daemon: Running) -> None:
    daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")


def kernel(host: Host) -> dict[str, object]:
    return {**snapshot(host), "ruleset": pieces(host), "generation": generation(host)}


@pytest.mark.parametrize("ends", ["killed", "stopped"])
def test_starting_changes_nothing_that_is_right(
    network: Network, daemon: Running, ends: str
) -> None:
    """Not one transaction of Tula's table; nobody is told of VIPs again; who was down stays so."""
    with daemon:
        all_up(daemon)
        network.backends[2].remove_address("lo", "10.9.0.100/32", "fd09::100/128")
        daemon.wait_for(backend_1="up", backend_3="down")
        held, before = Flows(network), kernel(network.lb)
        before["generation"] += 1  # the table of its own that goes with the daemon
        assert "backend-3" not in str(held.before)
        with Capture(network.lb) as capture:
            daemon.kill() if ends == "killed" else daemon.stop()
            assert held.answers() == held.before, "traffic goes on without it"
            daemon.start()
            daemon.wait_for(backend_1="up", backend_2="up", backend_3="down")
            assert not announced(capture.frames(outgoing=True))
        assert kernel(network.lb) == before
        assert held.answers() == held.before
        assert not [e for e in daemon.events() if e["kind"] == "kernel-repaired"]


def announced(frames: list[bytes]) -> set[str]:
    """The addresses that these frames tell everyone of, unasked."""
    found = set()
    for frame in frames:
        kind = frame[12:14]
        if kind != b"\x08\x06" and (kind != b"\x86\xdd" or frame[20] != socket.IPPROTO_ICMPV6):
            continue  # among tens of thousands
        packet = Ether(frame)
        if ARP in packet and packet[ARP].psrc == packet[ARP].pdst:
            found.add(packet[ARP].psrc)
        if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].S == 0:
            found.add(packet[ICMPv6ND_NA].tgt)
    return found


def forget_all(lb: Host) -> None:
    """What a reboot does; the state directory stays."""
    lb.run(["nft", "delete", "table", *TABLE.split()])
    for version in ("-4", "-6"):
        lb.run(["ip", version, "rule", "del", "pref", "84"])
        lb.run(["ip", version, "route", "flush", "table", "21621"])
    lb.run(["ip", "address", "del", "10.9.0.100/32", "dev", "eth0"])
    lb.run(["ip", "address", "del", "fd09::100/128", "dev", "eth0"])


def test_after_a_reboot_rules_come_before_vips(network: Network, daemon: Running) -> None:
    """While clients go on asking, the balancer's own stack never gets one of their packets:
    no connection is reset, and nobody is told of a VIP before its packets are forwarded."""
    lb = network.lb
    with daemon:
        all_up(daemon)
        daemon.client().send("POST", backend_path("web", "backend-2", "drain"))
        daemon.client().send("POST", backend_path("web", "backend-3", "disable"))
        daemon.wait_for(backend_1="up", backend_2="draining", backend_3="disabled")
        opened = {f: tcp_flows(network.client, vip_of(network, f), 80, TCP_PORTS) for f in FAMILIES}
        before = {family: ask_all(each) for family, each in opened.items()}
        daemon.stop()
        forget_all(lb)
        assert observe(lb) is None
        # Asked all the time: a VIP that is taken before its rules are there answers with a reset.
        asking = [sys.executable, "-c", ASK_ALL_THE_TIME, *network.vips]
        load = network.client.popen(asking, stdout=subprocess.PIPE)
        assert load.stdout is not None
        assert load.stdout.readline() == "ready\n"
        # What is announced comes to all; backend-3 has no traffic beside, as it is disabled.
        with Capture(network.backends[2]) as capture:
            daemon.start()
            daemon.wait_for(backend_1="up", backend_2="draining", backend_3="disabled")
            wait_until(lambda: announced(capture.frames(outgoing=False)) == set(network.vips))
        load.terminate()
        told = json.loads(load.communicate(timeout=60)[0])
        print(told)
        assert told["answered"] > 0, told
        assert told["reset"] == 0, "the balancer's own stack answered"
        assert {family: ask_all(each) for family, each in opened.items()} == before
        fresh = flows(network.client, network.vip4, 80, 30, "tcp")
        assert set(fresh.values()) == {"backend-1"}, "overrides are restored"


ASK_ALL_THE_TIME = """
import json, signal, socket, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
told = {"asked": 0, "answered": 0, "reset": 0}
print("ready", flush=True)
while not stop:
    for vip in sys.argv[1:]:
        asking = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET)
        asking.settimeout(0.05)
        told["asked"] += 1
        try:
            asking.connect((vip, 80))
            told["answered"] += 1
        except ConnectionRefusedError:
            told["reset"] += 1
        except OSError:
            time.sleep(0.002)
        asking.close()
print(json.dumps(told), flush=True)
"""


def make_older(lb: Host, schema: int | None) -> None:
    """What another version of Tula may have left: other rules, maps, chains and another schema."""
    lines = [
        f"delete counter {TABLE} {schema_counter()}",
        f"add counter {TABLE} of_old",
        f"add map {TABLE} oldmap_8 {{ type mark : mark; size 8; }}",
        f"add element {TABLE} oldmap_8 {{ 1 : 2 }}",
        f"add chain {TABLE} old4.web",
        f'add rule {TABLE} old4.web counter name of_old comment "old"',
        f'insert rule {TABLE} service4.web counter comment "0123456789abcdef"',
        f'insert rule {TABLE} service6.web counter comment "0123456789abcdef"',
        f'insert rule {TABLE} in.eth0 meta length 1 jump old4.web comment "old"',
    ]
    if schema is not None:
        lines.append(f"add counter {TABLE} {schema_counter(schema)}")
    lb.run(["nft", "-f", "-"], input="\n".join(lines))


@pytest.mark.parametrize("schema", [None, 0], ids=["without a schema", "schema 0"])
def test_an_older_ruleset_is_taken_over_and_no_flow_notices(
    network: Network, daemon: Running, schema: int | None
) -> None:
    lb = network.lb
    ports = str(STREAMED)
    for backend in network.backends:
        program = [sys.executable, udp_load.__file__, "echo", backend.name, ports, *network.vips]
        echo = backend.popen(program, stdout=subprocess.PIPE)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
    with daemon:
        all_up(daemon)
        held, right = Flows(network), pieces(lb)
        daemon.kill()
        make_older(lb, schema)
        older = observe(lb)
        assert older is not None
        assert schema_of(older.counters) == 0
        here = InProcess(lb)
        with lb.enter():
            tables = here.balancer.stats().tables
        targets = [f"{vip},{STREAMED}" for vip in network.vips]
        program = [sys.executable, udp_load.__file__, "stream", "1000", "24", *targets]
        stream = network.client.popen(program, stdout=subprocess.PIPE)
        assert stream.stdout is not None
        assert stream.stdout.readline() == "ready\n"
        dropped = queue_drops()
        daemon.start()
        all_up(daemon)
        stream.terminate()
        told = json.loads(stream.communicate(timeout=60)[0])
        print(told)
        assert told["sent"] > 100
        assert told["lost"] <= queue_drops() - dropped
        assert (told["twice"], told["moved"]) == (0, 0)
        taken = observe(lb)
        assert taken is not None
        assert schema_of(taken.counters) == SCHEMA
        assert pieces(lb) == right, "nothing of the old one is left"
        with lb.enter():
            now = {table.name: table.entries for table in here.balancer.stats().tables}
        for table in tables:
            if table.entries is not None and not table.name.startswith("closed"):
                assert (now[table.name] or 0) >= table.entries, table
        assert held.answers() == held.before


def test_a_newer_ruleset_is_left_as_it_is(network: Network, daemon: Running) -> None:
    lb = network.lb
    newer = schema_counter(SCHEMA + 1)
    with daemon:
        all_up(daemon)
        held = Flows(network)
        daemon.kill()
        lines = [f"delete counter {TABLE} {schema_counter()}", f"add counter {TABLE} {newer}"]
        lines += [f"add map {TABLE} probe_nexthop4_9 {{ type ipv4_addr : verdict; }}"]
        lb.run(["nft", "-f", "-"], input="\n".join(lines))
        before = kernel(lb)
        for words in (("plan", "-f"), ("apply", "-f")):
            done = call_tula(lb, *words, daemon.configuration, check=False)
            assert done.returncode == 1
            assert f"is of a newer Tula (schema {SCHEMA + 1}, this one knows {SCHEMA})" in (
                done.stderr
            )
        daemon.start()
        wait_until(lambda: "event=cycle-failed" in daemon.log, 60)
        assert "is of a newer Tula" in daemon.log
        assert kernel(lb) == before
        assert held.answers() == held.before
        lines = [f"delete counter {TABLE} {newer}", f"delete map {TABLE} probe_nexthop4_9"]
        lb.run(["nft", "-f", "-"], input="\n".join(lines))
        wait_until(lambda: "event=cycle-recovered" in daemon.log, 40.0)
        all_up(daemon)
        assert held.answers() == held.before
