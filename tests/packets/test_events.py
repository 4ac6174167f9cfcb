"""What happened is known after the daemon's end, however that came, and the journal tells it.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1, -2
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from support.debian import Debian
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Lab, flat, serve_tcp, wait_until
from tula.lab.process import Process

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 1, "fall": 2}
_JOURNALD = "mount -t cgroup2 none /sys/fs/cgroup; exec /lib/systemd/systemd-journald"
_HEADER = "tula\n\n6\n1\n0\n0\n0\n"
"""Of a stream to the journal, as systemd begins it: identifier, unit, priority, prefixes count."""


class Journaled(Running):
    """A daemon whose output systemd has connected with the journal."""

    def __init__(self, debian: Debian, configuration: Path) -> None:
        super().__init__(debian.host, configuration)
        self._journal = str(debian.tree / "run/systemd/journal/stdout")

    def _connected(self) -> socket.socket | None:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(self._journal)
        except OSError:
            stream.close()
            return None
        return stream

    def launch(self, _: int) -> Process:
        with wait_until(self._connected, 60, "journald") as stream:
            stream.sendall(_HEADER.encode())
            found = os.fstat(stream.fileno())
            self._before = ("env", f"JOURNAL_STREAM={found.st_dev}:{found.st_ino}")
            return super().launch(stream.fileno())


def test_events_survive_and_are_in_the_journal(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, clients=1, backends=2)
    servers = [serve_tcp(backend, [80]) for backend in network.backends]
    lb, debian = network.lb, Debian(network.lb, tmp_path)
    (debian.tree / "run/log/journal").mkdir(parents=True)
    debian.run("systemd-machine-id-setup", check=False)
    debian.start("sh", "-c", _JOURNALD, log=tmp_path / "journald.log", sees_all=True)
    web = service_of(network, health=QUICK)
    configuration = write_config(tmp_path / "tula.yaml", {"web": web})

    daemon = Journaled(debian, configuration)
    daemon.start()
    daemon.wait_for(backend_1="up", backend_2="up")
    servers[0].close()
    daemon.wait_for(backend_1="down")
    seen = daemon.client().get("/events", limit=1000)
    file = daemon.state / "events.jsonl"
    wait_until(lambda: str(seen["events"][-1]["number"]) in file.read_text(), 60, "the disk")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    daemon.kill()

    # Nobody runs: the disk knows.
    told = json.loads(call_tula(lb, "events", "--json").stdout)
    assert told["epoch"] == seen["epoch"]
    assert told["events"][: len(seen["events"])] == seen["events"]
    assert "backend-down web/backend-1" in call_tula(lb, "events").stdout
    file = Path(lb.environment()["TULA_STATE_DIR"], "events.jsonl")
    with file.open("ab") as torn:
        torn.write(b'{"number":')

    # Who has seen that goes on by epoch and number, and misses nothing.
    daemon.start()
    configuration.write_text(configuration.read_text() + "\nfrobs: 1\n")
    call_tula(lb, "reload", check=False)
    last = told["events"][-1]["number"]
    more = daemon.client().get("/events", after=last, epoch=told["epoch"], limit=1000)
    assert more["epoch"] == told["epoch"]
    kinds = [event["kind"] for event in more["events"]]
    assert kinds[0] == "daemon-started", kinds
    assert "configuration-refused" in kinds
    assert daemon.events()[0] == seen["events"][0]
    assert daemon.stop() == 0
    again = json.loads(call_tula(lb, "events", "--json").stdout)["events"]
    assert again[-1]["kind"] == "daemon-stopped"
    numbers = [event["number"] for event in again]
    assert sorted(set(numbers)) == numbers

    def entries(*options: str) -> list[dict[str, str]]:
        lines = debian.run("journalctl", "-D", "/run/log/journal", "-o", "json", *options).stdout
        return [json.loads(line) for line in lines.splitlines()]

    def warned() -> str:
        return "\n".join(entry["MESSAGE"] for entry in entries("-p", "warning", "-t", "tula"))

    wait_until(lambda: "event=configuration-refused" in warned(), 60, "the journal")
    assert "event=backend-down subject=web/backend-1" in warned()
    assert "event=backend-up" not in warned()
    priorities = {entry["MESSAGE"]: entry["PRIORITY"] for entry in entries("-t", "tula")}
    assert {p for text, p in priorities.items() if "event=backend-up" in text} == {"6"}
    assert {p for text, p in priorities.items() if "event=backend-down" in text} == {"4"}
    assert not [text for text in priorities if text.startswith("<")]
