"""A balancer that is a machine with the package, its backends, and a client that never stops.

::

    client  10.0.0.50        lb1  10.0.0.2           cache-1, cache-2  10.0.0.11, .12
            fd00::50         (Debian, systemd)       (hosts of the lab)
        │                        │                       │
    ════╧════════════════════════╧═══════════════════════╧════  lan   VIP 10.0.0.100, fd00::100
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from threading import Event
from typing import Any

import yaml

from support import udp_load
from support.booted import Machine
from tula.lab import (
    Host,
    Lab,
    ask_all,
    flows,
    prepare_backend,
    serve_tcp,
    tcp_flows,
    wait_until,
)
from tula.lab.process import Process

VIPS = ("10.0.0.100", "fd00::100")
WEB, STREAM = 80, 5353
PROGRAM = [sys.executable, udp_load.__file__]
FILE = "/etc/tula/tula.yaml"


def configuration(**more: Any) -> str:
    """Both services, on both VIPs; ``more`` goes to the top."""
    backends = {f"cache-{n}": {"address": [f"10.0.0.1{n}", f"fd00::1{n}"]} for n in (1, 2)}
    common = {"vip": list(VIPS), "forwarding": "l2", "backends": backends}
    check = {"type": "tcp", "interval": "500ms", "timeout": "400ms"}
    services = {
        "web": {**common, "ports": [WEB], "health": check},
        "stream": {**common, "ports": [STREAM], "protocol": "udp"},
    }
    return yaml.safe_dump(
        {
            "interfaces": ["eth0"],
            "load_balancers": {"lb1": "10.0.0.2"},
            "services": services,
            **more,
        }
    )


class Site:
    """Everything is on; nothing is configured on ``lb`` yet."""

    def __init__(self, lab: Lab, layers: Sequence[Path]) -> None:
        self.lab = lab
        self.lan = lab.switch("lan")
        self.lb = Machine(lab, "lb1", self.lan, ["10.0.0.2/24", "fd00::2/64"], layers)
        self.client = lab.host("client", self.lan, "10.0.0.50/24", "fd00::50/64")
        self.caches = [
            lab.host(f"cache-{n}", self.lan, f"10.0.0.1{n}/24", f"fd00::1{n}/64") for n in (1, 2)
        ]
        self.lb.start()
        lab.ready()
        for cache in self.caches:
            prepare_backend(cache, VIPS)
            serve_tcp(cache, [WEB], VIPS)
            echo = cache.popen([*PROGRAM, "echo", cache.name, str(STREAM), *VIPS], stdout=PIPE)
            _expect(echo, "ready")

    def configure(self, text: str | None = None) -> None:
        """Writes the balancer's file."""
        self.lb.path(FILE).write_text(text or configuration())

    def serve(self) -> None:
        """Configured, the daemon on and enabled, backends up."""
        self.configure()
        self.lb.run("systemctl", "enable", "--now", "tula.service")
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Until every check has passed."""
        wait_until(lambda: set(self.states("web").values()) == {"up"}, 90, "the backends")

    def status(self) -> dict[str, Any]:
        """``tula status --json`` on the balancer."""
        answer = json.loads(self.lb.run("tula", "status", "--json").stdout)
        assert isinstance(answer, dict)
        return answer

    def states(self, service: str) -> dict[str, str]:
        """By backend."""
        (found,) = (each for each in self.status()["services"] if each["name"] == service)
        return {backend["name"]: backend["state"] for backend in found["backends"]}

    def answers(self, number: int = 20) -> Counter[str]:
        """Who answers new connections to the VIPs; all of them are answered."""
        found: Counter[str] = Counter()
        for vip in VIPS:
            found.update(flows(self.client, vip, WEB, number, timeout=30.0).values())
        return found

    def pid(self) -> int:
        """The daemon's, on its machine."""
        return int(self.lb.show("tula.service", "MainPID"))

    @contextmanager
    def load(self, connections: int = 300, rate: int = 500) -> Iterator[Load]:
        """Connections that are asked all the time, and a UDP stream; afterwards none of the
        connections is broken and no datagram lost or moved to another backend."""
        made = Load(self.client, connections, rate)
        try:
            made.start()
            yield made
        finally:
            made.stop()
        made.verify()


class Load:
    """What the client does meanwhile."""

    def __init__(self, client: Host, connections: int, rate: int) -> None:
        self._client, self._number, self._rate = client, connections, rate
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)
        self.rounds = 0
        """How often every connection was asked."""
        self.said: dict[str, Any] = {}
        """What the stream counted."""

    def start(self) -> None:
        """Opens all, and asks until ``stop``."""
        each = self._number // len(VIPS)
        self._flows = [
            flow
            for vip in VIPS
            for flow in tcp_flows(self._client, vip, WEB, range(30000, 30000 + each), timeout=30.0)
        ]
        self._before = [flow.backend for flow in self._flows]
        targets = [f"{vip},{STREAM}" for vip in VIPS]
        self._stream = self._client.popen(
            [*PROGRAM, "stream", str(self._rate), "24", *targets], stdout=PIPE
        )
        _expect(self._stream, "ready")
        self._asking = self._pool.submit(self._ask)

    def _ask(self) -> None:
        while not self._stop.is_set():
            ask_all(self._flows, timeout=30.0)
            self.rounds += 1

    def wait(self, rounds: int = 2) -> None:
        """Until every connection has been asked so often from now on."""
        enough = self.rounds + rounds + 1
        wait_until(lambda: self.rounds >= enough or self._asking.done(), 120, "the connections")

    def stop(self) -> None:
        """Ends both, and reads what the stream counted."""
        self._stop.set()
        self._pool.shutdown()
        self._stream.send_signal(signal.SIGTERM)
        out, _ = self._stream.communicate(timeout=60)
        self.said = json.loads(out.splitlines()[-1])

    def verify(self) -> None:
        """Nothing was broken, lost, or moved."""
        self._asking.result()
        assert [flow.backend for flow in self._flows] == self._before
        assert set(self._before) == {"cache-1", "cache-2"}
        lost, moved, sent = (self.said[name] for name in ("lost", "moved", "sent"))
        print(
            f"{len(self._flows)} connections asked {self.rounds} times: 0 broken; {sent} datagrams "
            f"in {self.said['seconds']:.0f} s: {lost} lost, {moved} moved"
        )
        assert (lost, moved) == (0, 0)
        for flow in self._flows:
            flow.close(reset=True)


def _expect(process: Process, line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line
