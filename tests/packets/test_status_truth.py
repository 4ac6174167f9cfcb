"""What ``tula status`` and ``tula trace`` say of a kernel that somebody else has changed.

::

    client  10.9.0.1     lb  10.9.0.2        backend-1 … 3
        │                 │                     │   (VIPs on lo)
    ════╧═════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.running import Running
from tula.lab import Host, Lab, ask_all, flat, serve_tcp, tcp_flows, wait_until

pytestmark = pytest.mark.kernel

VIP = "10.9.0.100"


def status(lb: Host) -> tuple[str, dict[str, Any], int]:
    """The first line, the kernel's part of the JSON, and the exit status of ``--check``."""
    told = call_tula(lb, "status", "--check", check=False)
    found = json.loads(call_tula(lb, "status", "--json").stdout)
    line = told.stdout.splitlines()[0]
    assert line == found["summary"]["text"]
    return line, found["kernel"], told.returncode


def test_without_a_daemon_the_kernel_is_compared(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    lb = network.lb
    call_tula(lb, "apply", "-f", write_config(tmp_path / "tula.yaml", {"web": service_of(network)}))

    def repaired() -> None:
        call_tula(lb, "apply")
        line, kernel, code = status(lb)
        assert line.startswith("OK: no daemon runs, and nothing is checked; kernel in sync; ")
        assert (kernel["in_sync"], kernel["differences"], code) == (True, [], 0)

    repaired()
    lb.run(["nft", "delete", "table", "netdev", "tula"])
    line, kernel, code = status(lb)
    assert "; kernel out of sync: the kernel has no table of Tula: nothing is forwarded; " in line
    assert "; none of 1 service up; " in line
    assert (kernel["in_sync"], kernel["forwards"], code) == (False, False, 1)

    repaired()
    lb.run(["nft", "add", "table", "netdev", "tula", "{ flags dormant; }"])
    line, kernel, code = status(lb)
    assert "; kernel out of sync: Tula's table in the kernel is dormant: " in line
    assert (kernel["forwards"], code) == (False, 1)

    repaired()
    lb.run(["ip", "address", "del", f"{VIP}/32", "dev", "eth0"])
    line, kernel, code = status(lb)
    assert kernel["differences"] == [f"VIP {VIP} is missing on eth0"]
    assert (kernel["forwards"], code) == (True, 1)
    assert f"; kernel out of sync: VIP {VIP} is missing on eth0; " in line

    repaired()
    lb.run(["nft", "flush", "chain", "netdev", "tula", "in.eth0"])
    line, kernel, code = status(lb)
    assert any(line.startswith("chain in.eth0 differs") for line in kernel["differences"])
    assert code == 1

    repaired()
    call_tula(lb, "drain", "web/backend-1")
    line, kernel, code = status(lb)
    assert (kernel["in_sync"], code) == (True, 0), "the operator wants it so"
    for name in ("backend-2", "backend-3"):
        call_tula(lb, "drain", f"web/{name}", "--yes")
    line, kernel, code = status(lb)
    assert "; 0 of 1 service up, down: web (all backends drained); " in line
    assert (kernel["in_sync"], code) == (True, 1)

    lb.run(["ip", "link", "set", "eth0", "down"])
    line, kernel, code = status(lb)
    assert "; interface eth0 is down; " in line
    assert (kernel["interfaces"], code) == ({"eth0": "down"}, 1)


def test_trace_follows_the_kernel(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    lb, client, [backend, *others] = network.lb, network.client, network.backends
    services = {"web": service_of(network, backends=backends_of(backend))}
    call_tula(lb, "apply", "-f", write_config(tmp_path / "tula.yaml", services))
    for each in (backend, *others):
        serve_tcp(each, [80])

    def traced(vip: str = VIP) -> tuple[str | None, str]:
        to, source = (
            (f"[{vip}]:80", "[fd09::99]:4000") if ":" in vip else (f"{vip}:80", "10.9.0.99:1")
        )
        found = json.loads(call_tula(lb, "trace", to, "--client", source, "--json").stdout)
        return found["backend"], found["reason"]

    def answers() -> bool:
        return client.run(["nc", "-z", "-w", "1", VIP, "80"], check=False).returncode == 0

    def change(*commands: str) -> None:
        call_tula(lb, "apply")
        for command in commands:
            lb.run(["nft", *command.split(" ")])

    assert traced()[0] == backend.name
    for vip in network.vips:
        family = 6 if ":" in vip else 4
        change("delete table netdev tula")
        none = "nobody forwards this packet; the host's own stack gets it"
        assert traced(vip) == (None, f"out of sync: the kernel has no table of Tula: {none}")
        change("delete chain netdev tula in.eth0")
        assert traced(vip) == (None, f"out of sync: Tula has no rules at eth0: {none}")
        protocol = "6"
        change(
            f"delete element netdev tula service_port{family}_1024 {{ {vip} . {protocol} . 80 }}"
        )
        assert traced(vip) == (
            None,
            f"out of sync: no service in the kernel takes {vip} tcp port 80: {none}",
        )
    # Another next hop for the backend's number: what has it is not what the configuration says.
    call_tula(lb, "apply")
    listed = lb.run(["nft", "list", "map", "netdev", "tula", "nexthop4_1024"]).stdout
    (mark,) = re.findall(r"(0x\w+) counter", listed)
    lb.run(["nft", "delete", "element", "netdev", "tula", "nexthop4_1024", f"{{ {mark} }}"])
    found, why = traced()
    assert found is None
    assert why.endswith("is of a backend that the kernel has no next hop for: it is dropped")
    assert not answers(), "and so it is"
    change("add rule netdev tula service4.web accept")
    assert traced()[1].startswith("out of sync: chain service4.web in the kernel is not as Tula")


def test_connections_rates_and_what_has_left(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    lb, path = network.lb, tmp_path / "tula.yaml"
    for backend in network.backends:
        serve_tcp(backend, [80])

    def apply(*backends: Host) -> None:
        web = service_of(network, backends=backends_of(*backends))
        call_tula(lb, "apply", "-f", write_config(path, {"web": web}))

    def web(*options: str) -> dict[str, Any]:
        answer = json.loads(call_tula(lb, "status", "--json", *options).stdout)
        return dict(answer["services"][0])

    def left() -> int:
        """The packets of backends that have left; with them, the parts are the whole."""
        found = web()
        for name in ("packets", "bytes"):
            parts = [*found["backends"], found["left"]]
            assert found[name] == sum(each[name] for each in parts)
        return int(found["left"]["packets"])

    apply(*network.backends)
    held = tcp_flows(network.client, VIP, 80, range(30000, 30030))
    ask_all(held)
    assert sum(backend["connections"] for backend in web()["backends"]) == 30
    assert web()["rates"] is None
    rates = web("--rates")["rates"]
    assert rates == {"packets": 0.0, "bytes": 0.0, "new_flows": None}, "at rest"
    assert left() == 0
    apply(*network.backends[:2])
    gone = left()
    assert gone > 0
    lb.run(["nft", "flush", "ruleset"])
    assert left() == gone, "nobody counted what went with the flush"
    call_tula(lb, "apply")
    assert left() == gone
    assert "  (removed)  " in call_tula(lb, "status").stdout

    with Running(lb, path):
        fresh = tcp_flows(network.client, VIP, 80, range(31000, 31010))

        def busy() -> bool:
            ask_all(fresh)
            rates = web("--rates")["rates"]
            return rates is not None and rates["packets"] > 0 and rates["bytes"] > 0

        wait_until(busy, 60, "rates")
        assert left() == gone
        assert sum(backend["connections"] for backend in web()["backends"]) >= 10
