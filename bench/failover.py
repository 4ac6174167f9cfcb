"""Does reading delay a failover? From a verdict to the kernel, with readers and without.

::

    lb ═══ four hosts, each with all VIPs on lo and every fourth backend

1,000 services of four backends. A few are checked every 100 ms; their first backend refuses and
serves again in turn. Rounds with readers alternate with rounds without: `plan` of 10,000 services
runs in a loop, /metrics is scraped ten times a second, and status is asked every 100 ms. The times
are the daemon's own (tula_reaction_seconds).
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from health import _prepare
from probes import Daemon, answering

from tula.lab import Host, Lab, wait_until

_FAST = 5
_HOSTS = 4
_PERIOD = 0.1


class Readers:
    """What reads while backends go down; counts the answers."""

    def __init__(self, daemon: Daemon, large: bytes) -> None:
        self._client = daemon.client
        self._path = self._client.way.name
        self._large = large
        self._ending = threading.Event()
        self.answers = {"plan": 0, "metrics": 0, "status": 0}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """They read in the block, each in a thread of its own; the answers are thrown away."""
        self._ending.clear()
        work: dict[str, Callable[[], None]] = {
            "plan": self._plan,
            "metrics": lambda: self._get("/metrics"),
            "status": lambda: self._get("/api/v1/status"),
        }
        threads = [threading.Thread(target=self._repeat, args=item) for item in work.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            for thread in threads:
                thread.join()

    def _repeat(self, name: str, read: Callable[[], None]) -> None:
        while not self._ending.is_set():
            start = time.monotonic()
            read()
            self.answers[name] += 1
            if name != "plan":
                self._ending.wait(max(0.0, _PERIOD - (time.monotonic() - start)))

    def _plan(self) -> None:
        headers = f"Content-Type: application/yaml\r\nContent-Length: {len(self._large)}\r\n"
        self._ask(f"POST /api/v1/plan HTTP/1.1\r\n{headers}", self._large)

    def _get(self, path: str) -> None:
        self._ask(f"GET {path} HTTP/1.1\r\n", b"")

    def _ask(self, head: str, body: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(self._path)
            opened.sendall(f"{head}Host: tula\r\nConnection: close\r\n\r\n".encode() + body)
            first = opened.recv(1 << 20)
            if not first.startswith(b"HTTP/1.1 200"):
                sys.exit(f"the daemon answered {first[:300]!r}")
            while opened.recv(1 << 20):
                pass


def configuration(services: int, backends: str, fast: int) -> dict[str, Any]:
    """Services with four backends each; the first few are checked often."""
    often = {"interval": "100ms", "timeout": "100ms", "rise": 1, "fall": 1}
    seldom = {"interval": "5s", "rise": 1, "fall": 2}
    return {
        "interfaces": ["eth0"],
        "services": {
            f"s{n}": {
                "vip": vip(n),
                "ports": [80],
                "forwarding": "l2",
                "announce": False,
                "health": {"type": "tcp", **(often if n < fast else seldom)},
                "backends": {f"b{k}": {"address": f"{backends}{k + 1}"} for k in range(_HOSTS)},
            }
            for n in range(services)
        },
    }


def vip(number: int) -> str:
    """The address of service 0, 1, ..."""
    return f"10.{number // 62500 + 1}.{number // 250 % 250}.{number % 250 + 1}"


def measure(services: int, planned: int, rounds: int, events: int) -> tuple[list[float], ...]:
    """Seconds from a verdict to the kernel, without readers and with them."""
    import yaml

    large = yaml.safe_dump(configuration(planned, "10.0.1.", 0)).encode()
    found: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        switch = lab.switch("switch")
        lb = lab.host("lb", switch, "10.0.0.2/8")
        hosts = [lab.host(f"h{n}", switch, f"10.0.0.{n + 3}/8") for n in range(_HOSTS)]
        for number, host in enumerate(hosts):
            _prepare(lb, host, [f"10.0.1.{number + 1}"], [vip(n) for n in range(services)])
            answering(host)
        hosts[0].run(
            ["nft", "-f", "-"],
            input="table ip no {\nset down { type ipv4_addr; }\nchain in {\n"
            "type filter hook input priority 0;\n"
            "ip daddr @down tcp flags syn reject with tcp reset\n}\n}\n",
        )
        daemon = Daemon(lb, configuration(services, "10.0.1.", _FAST), Path(folder))
        try:
            wait_until(lambda: daemon.figures().up == _HOSTS * services, 120.0, "all up")
            readers = Readers(daemon, large)
            for _ in range(rounds):
                found[0].extend(_reactions(daemon, hosts[0], events))
                with readers.reading():
                    wait_until(lambda: readers.answers["plan"] > 0, 300.0, "a plan")
                    found[1].extend(_reactions(daemon, hosts[0], events))
            print(f"answers meanwhile: {readers.answers}", flush=True)
        finally:
            daemon.stop()
    return found


def _reactions(daemon: Daemon, host: Host, events: int) -> Iterator[float]:
    count, seconds = _total(daemon)
    for number in range(events):
        verb = "add" if number % 2 == 0 else "delete"
        address, told = vip(number // 2 % _FAST), _verdicts(daemon)
        # Not in step with anything.
        time.sleep(0.05 + 0.013 * (number % 7))
        host.run(["nft", verb, "element", "ip", "no", "down", f"{{ {address} }}"])
        wait_until(lambda told=told: _verdicts(daemon) > told, 60.0, "it is told")
        # Once: a scrape of thousands of backends is what is measured in the other rounds.
        before, (count, total) = count, _total(daemon)
        if count > before:
            yield (total - seconds) / (count - before)
        seconds = total


def _verdicts(daemon: Daemon) -> int:
    log = daemon.log
    return log.count("event=backend-up") + log.count("event=backend-down")


def _total(daemon: Daemon) -> tuple[float, float]:
    """How many reactions there were, and their seconds."""
    text = daemon.metrics()

    def value(name: str) -> float:
        found = re.search(rf"^tula_reaction_seconds_{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, text[:300]
        return float(found[1])

    return value("count"), value("sum")


def _row(name: str, seconds: list[float]) -> str:
    cut = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = [statistics.median(seconds), cut[89], cut[98], max(seconds)]
    return f"| {name} | {len(seconds)} | " + " | ".join(f"{1e3 * s:.1f} ms" for s in figures) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--events", type=int, default=40, help="in each half of a round")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--planned", type=int, default=10_000)
    given = parser.parse_args()
    without, beside = measure(given.services, given.planned, given.rounds, given.events)
    print("| from a verdict to the kernel | events | median | 90 % | 99 % | worst |")
    print("|---" * 6 + "|")
    print(_row("nobody reads", without))
    print(_row("plan, /metrics and status", beside))
    last = [statistics.quantiles(s, n=100, method="inclusive")[98] for s in (without, beside)]
    ratio = statistics.median(beside) / statistics.median(without)
    more = last[1] - last[0]
    print(
        f"\nmedian × {ratio:.2f} (at most 1.5), 99th percentile {1e3 * more:+.1f} ms (at most 50)"
    )


if __name__ == "__main__":
    main()
