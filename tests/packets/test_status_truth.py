"""What ``tula status`` and ``tula trace`` say of a kernel that somebody else has changed.

::

    client  10.9.0.1     lb  10.9.0.2        backend-1 … 3
        │                 │                     │   (VIPs on lo)
    ════╧═════════════════╧═════════════════════╧═════  lan
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from tula.lab import Host, Lab, flat

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
        call_tula(lb, "drain", f"web/{name}")
    line, kernel, code = status(lb)
    assert "; 0 of 1 service up, down: web (all backends drained); " in line
    assert (kernel["in_sync"], code) == (True, 1)

    lb.run(["ip", "link", "set", "eth0", "down"])
    line, kernel, code = status(lb)
    assert "; interface eth0 is down; " in line
    assert (kernel["interfaces"], code) == ({"eth0": "down"}, 1)
