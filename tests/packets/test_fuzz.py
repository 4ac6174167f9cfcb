"""Random packets: nothing breaks, and nothing is forwarded that is for no service.

::

    client-1               lb :7777           backend-1, -2, -3   VIP:80 tcp, VIP:53 udp
        │                   │                       │
    ════╧═══════════════════╧═══════════════════════╧══════════════════════  lan

10,000 packets; 100,000 with TULA_SOAK=1 (make soak), TULA_SEED names other ones.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.crafted import Crafted
from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from support.packets import Watch, address_of, vip_of, watching
from support.random_packets import Places, RandomPackets, may_be_forwarded, packed
from tula.lab import Lab, TcpFlow, flat, send_frame, serve_tcp, serve_udp, tcp_flow, udp_ask

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(1800)]

PACKETS = 100_000 if os.environ.get("TULA_SOAK") else 10_000
BATCH = 500
SEED = int(os.environ.get("TULA_SEED", "20"))
CLIENTS = {4: ("10.9.0.210", "10.9.0.211"), 6: ("fd09::210", "fd09::211")}
MARKED = """
table inet watch {
  counter marked { }
  counter whole { }
  chain seen { type filter hook prerouting priority -400;
    counter name whole
    meta mark != 0 counter name marked
  }
}
"""


def kernel_complaints() -> set[str]:
    said = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    return {line for line in said.splitlines() if re.search(r"BUG|WARNING|Oops", line)}


def foreign(watch: Watch, crafted: Crafted, places: dict[int, Places]) -> list[str]:
    """What the balancer sent to backends that is neither for a service nor its own."""
    lb = bytes.fromhex(crafted.lb.mac().replace(":", ""))
    own = {ip for place in places.values() for ip in place.others[:1]}
    wrong = []
    for backend in crafted.network.backends:
        for frame in watch.frames(backend, outgoing=False):
            if frame[6:12] != lb or frame[0] & 1 or frame[12:14] == b"\x08\x06":
                continue  # ARP, and neighbour discovery to groups
            source = frame[26:30] if frame[12:14] == b"\x08\x00" else frame[22:38]
            link_local = source[:2] == b"\xfe\x80"
            if not link_local and source not in own and not may_be_forwarded(frame[14:], places):
                wrong.append(f"{backend.name}: {frame.hex()}")
    return wrong


def test_random_packets(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1)
    for backend in network.backends:
        serve_tcp(backend, [80])
        serve_udp(backend, [53])
    serve_tcp(network.lb, [7777])
    serve_udp(network.lb, [7777])
    services = {
        "web": service_of(network),
        "dns": service_of(network, protocol="udp", ports=[53]),
    }
    InProcess(network.lb).apply(write_config(tmp_path / "tula.yaml", services))
    network.lb.run(["nft", "-f", "-"], input=MARKED)
    crafted = Crafted(network)
    for family, length in ((4, 24), (6, 64)):
        network.client.add_address("eth0", *(f"{a}/{length}" for a in CLIENTS[family]))
    places = {
        family: Places(
            clients=packed(*CLIENTS[family]),
            vips=packed(vip_of(network, family)),
            others=packed(
                address_of(network.lb, family), *(("192.0.2.1",) if family == 4 else ("fd0a::1",))
            ),
        )
        for family in (4, 6)
    }
    packets = RandomPackets(SEED, places)
    macs = crafted.frame(b"")[:12]
    before = kernel_complaints()
    own, served = conversations(crafted)
    chosen = [flow.backend for flow in served]
    for start in range(0, PACKETS, BATCH):
        where = f"seed {SEED}, packets {start} to {start + BATCH - 1}"
        with watching(*network.backends) as watch:
            send_frame(network.client, "eth0", *(packets.frame(macs) for _ in range(BATCH)))
            assert [flow.ask() for flow in own] == ["lb", "lb"], where
            assert [flow.ask() for flow in served] == chosen, where
            for family in (4, 6):
                assert udp_ask(network.client, address_of(network.lb, family), 7777) == "lb", where
        assert foreign(watch, crafted, places) == [], where
    assert kernel_complaints() == before, f"seed {SEED}"
    listed = network.lb.run(["nft", "list", "counters", "table", "inet", "watch"]).stdout
    counted = re.findall(r"counter (\w+) {\s+packets (\d+)", listed)
    found = {name: int(count) for name, count in counted}
    assert found["marked"] == 0, f"seed {SEED}: marks reached the host"
    assert found["whole"] > PACKETS / 10, "much of it is the host's"
    tula = crafted.named_counters()
    assert min(tula["fragments"], tula["icmp_steered"]) > PACKETS / 500, "and some got far"


def conversations(crafted: Crafted) -> tuple[list[TcpFlow], list[TcpFlow]]:
    """TCP with the balancer itself, and with a service, in both IP versions."""
    client = crafted.client
    own = [tcp_flow(client, address_of(crafted.lb, family), 7777) for family in (4, 6)]
    served = [tcp_flow(client, vip_of(crafted.network, family), 80) for family in (4, 6)]
    return own, served
