"""What probing costs: thousands of backends, each asked every second, by the real daemon.

::

    lb ════════ backends     one host with all of the backends' addresses, and the VIPs on lo

Prints CPU, memory and lateness in Markdown. ``--soak SECONDS`` prints them every minute instead,
in a line each: memory has to stay where it is.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tula.cli.client import Client, DaemonError, NoDaemonError, UnixSocket
from tula.lab import Host, Lab, wait_until
from tula.lab.process import Process
from tula.lab.switch import Switch

_SERVICES = 10
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """The daemon at one moment; times in seconds, sizes in MiB."""

    at: float
    cpu: float
    rss: float
    starts: float
    late: float
    worst: float
    failures: float
    up: int


class Daemon:
    """``tula run`` in a host, by a configuration."""

    def __init__(self, host: Host, configuration: dict[str, Any], folder: Path) -> None:
        path, self._log = folder / "tula.yaml", folder / "daemon.log"
        path.write_text(yaml.safe_dump(configuration, sort_keys=False))
        self._socket = Path(host.environment()["TULA_RUN_DIR"], "tula.sock")
        self.client = Client(UnixSocket(self._socket))
        with self._log.open("w") as output:
            self.process: Process = host.start_tula(
                "run", "-f", path, stdout=output.fileno(), stderr=output.fileno()
            )
        wait_until(self._answers, 120.0, "the daemon")

    @property
    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def figures(self) -> Figures:
        """CPU and memory are read first: being asked costs some, too."""
        cpu, rss = self.cpu(), self._rss()
        at, found = time.monotonic(), self.samples()
        return Figures(
            at=at,
            cpu=cpu,
            rss=rss,
            starts=found["tula_probe_late_seconds_count"],
            late=found["tula_probe_late_seconds_sum"],
            worst=found["tula_probe_late_worst_seconds"],
            failures=found.get("tula_probe_failures_total", 0.0),
            up=int(found.get("tula_backend_state", 0.0)),
        )

    def samples(self) -> dict[str, float]:
        """The metrics' sums by name; of states, those that are up."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.metrics()):
            for sample in family.samples:
                if sample.labels.get("state", "up") == "up":
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def metrics(self) -> str:
        """What Prometheus reads."""
        with socket.socket(socket.AF_UNIX) as opened:
            opened.connect(str(self._socket))
            opened.sendall(b"GET /metrics HTTP/1.1\r\nHost: tula\r\nConnection: close\r\n\r\n")
            with opened.makefile("rb") as answer:
                return answer.read().decode().partition("\r\n\r\n")[2].replace("\r", "")

    def stop(self) -> None:
        """SIGTERM."""
        self.process.terminate()
        self.process.wait(30)

    def cpu(self) -> float:
        """Seconds of CPU until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def _rss(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            sys.exit(f"the daemon ended: {self.log}")
        try:
            return bool(self.client.get("/status"))
        except (NoDaemonError, DaemonError):
            return False


def answering(host: Host) -> None:
    """A server on port 80 of all of its addresses, in a process of its own."""
    server = Path(__file__).with_name("answering.py")
    host.popen([sys.executable, str(server), "80"])
    wait_until(lambda: _listens(host), 10.0, "the server")


def _listens(host: Host) -> bool:
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
        return opened.connect_ex(("127.0.0.1", 80)) == 0


def backend_address(number: int) -> str:
    """The address of backend 0, 1, ..."""
    return f"10.0.{number // 250 + 1}.{number % 250 + 1}"


def add_backends(
    lab: Lab, count: int, vips: list[str], switch: Switch | None = None
) -> tuple[Host, Host]:
    """The balancer, and the one host that is all backends."""
    switch = switch or lab.switch("switch")
    lb = lab.host("lb", switch, "10.0.0.2/16")
    backends = lab.host("backends", switch, "10.0.0.3/16")
    for name in ("all", "eth0"):
        backends.write_sysctl(f"net/ipv4/conf/{name}/arp_ignore", 1)
        backends.write_sysctl(f"net/ipv4/conf/{name}/arp_announce", 2)
    # More neighbours than the machine-wide gc_thresh3 (1,024 unless set): permanent ones do not
    # count (neighbour.c, neigh_alloc).
    mac = backends.mac("eth0")
    with backends.netlink() as netlink:
        index = backends.index("eth0")
        for number in range(count):
            netlink.addr("add", index=index, address=backend_address(number), prefixlen=16)
        for vip in vips:
            netlink.addr(
                "add", index=netlink.link_lookup(ifname="lo")[0], address=vip, prefixlen=32
            )
    with lb.netlink() as netlink:
        for number in range(count):
            netlink.neigh(
                "replace",
                dst=backend_address(number),
                lladdr=mac,
                ifindex=lb.index("eth0"),
                state="permanent",
            )
    return lb, backends


def configuration(count: int, kind: str, interval: str) -> dict[str, Any]:
    """Ten services that share out the backends, each asked through the data path."""
    each = count // _SERVICES
    return {
        "interfaces": ["eth0"],
        "services": {
            f"s{service}": {
                "vip": vip,
                "ports": [80],
                "forwarding": "l2",
                "health": {"type": kind, "interval": interval, "timeout": "1s"},
                "backends": {
                    f"b{n}": {"address": backend_address(n)}
                    for n in range(service * each, (service + 1) * each)
                },
            }
            for service, vip in enumerate(_vips())
        },
    }


def _vips() -> list[str]:
    return [f"10.0.200.{number + 1}" for number in range(_SERVICES)]


@contextmanager
def probing(count: int, kind: str, interval: str) -> Iterator[Daemon]:
    """The daemon, once all backends are up."""
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        lb, backends = add_backends(lab, count, _vips())
        answering(backends)
        daemon = Daemon(lb, configuration(count, kind, interval), Path(folder))
        try:
            wait_until(lambda: daemon.figures().up == count, 60.0, "all backends up")
            yield daemon
        finally:
            daemon.stop()


def soak(count: int, kind: str, interval: str, seconds: float) -> None:
    """A line a minute."""
    with probing(count, kind, interval) as daemon:
        start = before = daemon.figures()
        while before.at < start.at + seconds:
            time.sleep(min(60.0, seconds))
            now = daemon.figures()
            cpu = (now.cpu - before.cpu) / (now.at - before.at)
            print(
                f"{now.at - start.at:6.0f} s: RSS {now.rss:.1f} MiB, CPU {100 * cpu:.0f} %, "
                f"{now.starts:.0f} probes, late {1e3 * _mean(before, now):.2f} ms, worst "
                f"{1e3 * now.worst:.0f} ms, {now.failures:.0f} failed, {now.up} up",
                flush=True,
            )
            before = now


def _mean(before: Figures, now: Figures) -> float:
    return (now.late - before.late) / max(1.0, now.starts - before.starts)


def measure(count: int, kind: str, interval: str, seconds: float) -> str:
    """A row of the table."""
    with probing(count, kind, interval) as daemon:
        time.sleep(5)
        before = daemon.figures()
        time.sleep(seconds)
        now = daemon.figures()
        cpu = (now.cpu - before.cpu) / (now.at - before.at)
        rate = (now.starts - before.starts) / (now.at - before.at)
        failed = now.failures - before.failures
        return (
            f"| {count:,} | {kind} | {rate:,.0f} | {100 * cpu:.0f} % | {now.rss:.0f} MiB "
            f"| {1e3 * _mean(before, now):.2f} ms | {1e3 * now.worst:.0f} ms | {failed:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backends", type=int, default=2000)
    parser.add_argument("--interval", default="1s")
    parser.add_argument("--kind", action="append")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    given = parser.parse_args()
    kinds = given.kind or ["tcp", "http"]
    if given.soak:
        soak(given.backends, kinds[0], given.interval, given.soak)
        return
    rows = [measure(given.backends, kind, given.interval, given.seconds) for kind in kinds]
    print("| backends | check | probes a second | CPU | memory | late | worst | failed |")
    print("|---" * 8 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
