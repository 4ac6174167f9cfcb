"""Who looks for drift is a process beside the daemon: failovers wait for the writer alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lab_configurations import write_config
from support.running import Running
from tula.lab import Lab, wait_until

pytestmark = pytest.mark.kernel

BACKENDS = 201
"""So many that no thread of the daemon answers."""


def readers(daemon: Running) -> set[str]:
    """The processes that look now."""
    children = Path(f"/proc/{daemon.pid}/task").glob("*/children")
    found = set()
    for child in " ".join(path.read_text() for path in children).split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if "reader_process" in command:
            found.add(child)
    return found


def test_looks_that_find_nothing_are_no_cycles(lab: Lab, tmp_path: Path) -> None:
    lb = lab.host("lb", lab.switch("lan"), "10.9.0.2/16")
    addresses = (f"10.9.{n // 200 + 1}.{n % 200 + 1}" for n in range(BACKENDS))
    web = {
        "vip": "10.9.0.100",
        "ports": [80],
        "forwarding": "l2",
        "backends": {f"b{n}": {"address": to} for n, to in enumerate(addresses)},
    }
    with Running(
        lb, write_config(tmp_path / "tula.yaml", {"web": web}), "--interval", "100ms"
    ) as daemon:
        daemon.wait_until_at_rest()
        # The one that answers metrics stays; those that look come and go.
        looked, count = readers(daemon), daemon.cycles()
        stays = set(looked)

        def looked_thrice() -> bool:
            looked.update(readers(daemon))
            return len(looked - stays) >= 3

        wait_until(looked_thrice, 120, "three looks")
        assert daemon.cycles() == count
        assert daemon.status()["daemon"]["problems"] == []
        assert not [e for e in daemon.events() if e["kind"] == "task-failed"], daemon.log


def test_what_no_event_tells_of_is_repaired(lab: Lab, tmp_path: Path) -> None:
    """The daemon hears of links, addresses, routes, rules and nftables, not of entries of a VXLAN
    device: without the backend's, its packets go nowhere."""
    lb = lab.host("lb", lab.switch("lan"), "10.9.0.2/16")
    web = {
        "vip": "10.9.0.100",
        "ports": [80],
        "forwarding": "l3",
        "tunnel": "vxlan",
        "backends": {"b1": {"address": "10.9.1.1"}},
    }
    path = write_config(tmp_path / "tula.yaml", {"web": web}, load_balancers={"lb": "10.9.0.2"})
    with Running(lb, path, "--interval", "300ms") as daemon:

        def entry() -> list[str]:
            shown = lb.run(["bridge", "fdb", "show"]).stdout.splitlines()
            return next((line.split() for line in shown if " dst 10.9.1.1 " in line + " "), [])

        def repaired() -> list[str]:
            events = daemon.events()
            return [each["message"] for each in events if each["kind"] == "kernel-repaired"]

        daemon.wait_until_at_rest()
        before = entry()
        mac, device = before[0], before[before.index("dev") + 1]
        lb.run(["bridge", "fdb", "del", mac, "dev", device, "dst", "10.9.1.1"])
        wait_until(lambda: entry() == before, 60, "the entry")
        # The kernel has it a moment before the daemon tells.
        wait_until(repaired, 60, "the event")
        assert repaired() == ["repaired tunnels"]
