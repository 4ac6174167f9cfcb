"""From three machines without Tula to the first answer; and an installation that starts nothing.

::

    client  10.0.0.50     lb1  10.0.0.2     cache-1, cache-2  10.0.0.11, .12
        │                  │ (Debian)            │ (Debian)
    ════╧══════════════════╧═════════════════════╧════  lan          VIP 10.0.0.100
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.booted import Machine
from support.machines import differences, machine
from support.packets import read_packets
from support.site import FILE
from tula.lab import Capture, Host, Lab, serve_http, wait_until

pytestmark = pytest.mark.kernel

VIP = "10.0.0.100"
CONFIGURATION = """\
interfaces: [eth0]
load_balancers: {lb1: 10.0.0.2}
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    health: {type: http}
    backends:
      cache-1: {address: 10.0.0.11}
      cache-2: {address: 10.0.0.12}
"""


def test_installing_starts_nothing(lab: Lab, bare: list[Path], package: Path) -> None:
    lb = Machine(lab, "lb1", lab.switch("lan"), ["10.0.0.2/24"], bare)
    lb.start()
    lab.ready()
    lb.equip()
    kernel = machine(lb.host)
    lb.install(package)
    assert differences(kernel, machine(lb.host)) == {}
    assert lb.show("tula", "ActiveState") == "inactive"
    assert lb.show("tula", "UnitFileState") == "disabled"
    assert lb.sh("ls -A /var/lib/tula /run/tula 2>/dev/null || true") == ""
    assert lb.run("tula", "check", "-f", FILE).returncode == 0
    assert lb.sh("ps -u tula -o pid= || true") == ""
    lb.reboot()
    assert lb.show("tula", "ActiveState") == "inactive"
    # Started as it is, it serves nothing, and the machine's network stays what it was.
    kernel = machine(lb.host)
    lb.run("systemctl", "start", "tula")
    assert json.loads(lb.run("tula", "status", "--json").stdout)["services"] == []
    lb.run("systemctl", "stop", "tula")
    lb.run("tula", "clear")
    assert differences(kernel, machine(lb.host)) == {}


def asked(client: Host) -> str:
    """Which backend answered a new connection, if one did."""
    curl = ["curl", "-s", "-m", "5", f"http://{VIP}/"]
    return client.run(curl, check=False).stdout.partition(" ")[0]


def test_three_commands_to_the_first_answer(lab: Lab, bare: list[Path], package: Path) -> None:
    lan = lab.switch("lan")
    machines = [
        Machine(lab, name, lan, [f"{address}/24"], bare)
        for name, address in (
            ("lb1", "10.0.0.2"),
            ("cache-1", "10.0.0.11"),
            ("cache-2", "10.0.0.12"),
        )
    ]
    client = lab.host("client", lan, "10.0.0.50/24")
    lb, *caches = machines
    for each in machines:
        each.start()
    lab.ready()
    for cache in caches:
        serve_http(cache.host, [80], ["0.0.0.0"])
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda each: each.install(package), machines))
    for each in machines:
        each.path(FILE).write_text(CONFIGURATION)
    installed = time.monotonic()

    for cache in caches:
        assert (
            f"the backend {cache.name}" in cache.run("tula", "backend", "join", "-f", FILE).stdout
        )
    lb.run("tula", "check", "-f", FILE)
    lb.run("systemctl", "enable", "--now", "tula")
    with Capture(lb.host) as capture:
        wait_until(lambda: asked(client), 60, "an answer")
        first = time.monotonic()
        who = Counter(asked(client) for _ in range(16))
        # Requests pass the balancer, answers do not.
        packets = read_packets(capture.frames())
        assert any(packet.destination == VIP for packet in packets)
        assert all(packet.source != VIP for packet in packets if packet.destination == "10.0.0.50")
    print(f"installed on three machines at once in {installed - begin:.0f} s; ", end="")
    print(f"from then to the first answer {first - installed:.1f} s; answers of {dict(who)}")
    assert set(who) == {"cache-1", "cache-2"}
    shown = lb.run("tula", "status").stdout
    assert "cache-1" in shown
    assert "No problems found" in lb.run("tula", "doctor").stdout
    for each in machines:
        each.reboot()
    lab.ready()
    for cache in caches:
        serve_http(cache.host, [80], ["0.0.0.0"])

    wait_until(lambda: all(asked(client) for _ in range(8)), 90, "traffic after a reboot of all")
