"""What clients of the API cost the daemon: hundreds that follow events, and a scrape a second.

::

    clients ═══ lb ═══ backends    one host with 500 of the backends' addresses, all VIPs on lo
                    ╚═ other       the second backend of the services that fail

500 backends are probed every 250 ms: 2,000 probes a second. Five more services are checked every
100 ms, and a backend of theirs refuses and serves again in turn. Rounds with clients alternate with
rounds without; the times from a verdict to the kernel are the daemon's own (tula_reaction_seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes import Daemon, add_backends, answering, configuration

from tula.engine.callers import Grant, Scope
from tula.engine.tokens import TokenStore
from tula.lab import Host, Lab, wait_until
from tula.lab.process import Process

_FAST = 5
_TICK = os.sysconf("SC_CLK_TCK")
_API, _METRICS = "10.0.0.2:8420", "10.0.0.2:9420"


@dataclass(slots=True)
class Half:
    """What was measured without clients, or with them; CPU in shares of one, memory in MiB."""

    reactions: list[float] = field(default_factory=list)
    daemon_cpu: list[float] = field(default_factory=list)
    gateway_cpu: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    daemon_rss: float = 0.0
    gateway_rss: float = 0.0


def fast_vip(number: int) -> str:
    """The address of a service that fails."""
    return f"10.0.201.{number + 1}"


def with_api(count: int) -> dict[str, Any]:
    """``probes.configuration``, services that fail, and the API."""
    made = configuration(count, "tcp", "250ms")
    often = {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}
    made["services"] |= {
        f"fast{n}": {
            "vip": fast_vip(n),
            "ports": [80],
            "forwarding": "l2",
            "announce": False,
            "health": often,
            "backends": {"stays": {"address": "10.0.0.3"}, "fails": {"address": "10.0.0.4"}},
        }
        for n in range(_FAST)
    }
    return {**made, "api": {"listen": _API}, "metrics": {"listen": _METRICS}}


class Served(Daemon):
    """A daemon with its gateway."""

    @property
    def gateway(self) -> int:
        """The gateway's process id; 0 while there is none."""
        pid = self.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"tula.api.gateway" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0


@contextlib.contextmanager
def clients(host: Host, token: str, count: int, folder: Path) -> Iterator[None]:
    """They follow and scrape in the block, in a process of their own."""
    ready = folder / f"ready-{time.monotonic()}"
    command = [sys.executable, __file__, "--follow", str(count), "--ready", str(ready)]
    process: Process = host.popen(command, env={**os.environ, "TOKEN": token})
    try:
        wait_until(ready.exists, 120.0, "clients")
        yield
        assert process.poll() is None, "the clients ended"
    finally:
        process.terminate()
        process.wait(30)


async def follow(count: int, ready: Path) -> None:
    """``count`` clients that follow events, and one that scrapes every second."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    began = asyncio.Semaphore(count)
    tasks = [asyncio.create_task(_follow(context, began)) for _ in range(count)]
    while not began.locked():
        await asyncio.sleep(0.1)
    ready.touch()
    scraping = asyncio.create_task(_scrape())
    await asyncio.wait({*tasks, scraping}, return_when=asyncio.FIRST_COMPLETED)
    sys.exit("a client was cut off")


async def _follow(context: ssl.SSLContext, began: asyncio.Semaphore) -> None:
    host, _, port = _API.rpartition(":")
    while True:  # as browsers do
        try:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            head = f"Host: lb\r\nAuthorization: Bearer {os.environ['TOKEN']}\r\n"
            writer.write(f"GET /api/v1/events/stream HTTP/1.1\r\n{head}\r\n".encode())
            await reader.readuntil(b"id: ")
            break
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(1.0)
    await began.acquire()
    while await reader.read(65536):
        pass


async def _scrape() -> None:
    host, _, port = _METRICS.rpartition(":")
    while True:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n")
        assert b" 200 " in (await reader.read()).splitlines()[0]
        writer.close()
        await asyncio.sleep(1.0)


def measure(count: int, following: int, rounds: int, events: int) -> tuple[Half, Half]:
    """Without clients, and with them."""
    found = Half(), Half()
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        switch = lab.switch("lan")
        vips = [fast_vip(n) for n in range(_FAST)]
        probed = with_api(count)
        slow = [each["vip"] for each in probed["services"].values() if each["vip"] not in vips]
        lb, backends = add_backends(lab, count, [*slow, *vips], switch)
        other = lab.host("other", switch, "10.0.0.4/16")
        asking = lab.host("clients", switch, "10.0.0.5/16")
        _prepare(other, vips)
        for host in (backends, other, asking):
            _know(lb, host)
            _know(host, lb)
        answering(backends)
        answering(other)
        daemon = Served(lb, probed, Path(folder))
        try:
            wait_until(lambda: daemon.figures().up == count + 2 * _FAST, 120.0, "all up")
            wait_until(lambda: daemon.gateway, 60.0, "the gateway")
            state = Path(lb.environment()["TULA_STATE_DIR"])
            token = TokenStore(state).create("bench", Grant(Scope.READ), None, "bench")[0]
            for _ in range(rounds):
                _half(found[0], daemon, other, events)
                with clients(asking, token, following, Path(folder)):
                    _half(found[1], daemon, other, events)
        finally:
            daemon.stop()
    return found


def _prepare(host: Host, vips: list[str]) -> None:
    for name in ("all", "eth0"):
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_ignore", 1)
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_announce", 2)
    for vip in vips:
        host.add_address("lo", f"{vip}/32")
    host.run(
        ["nft", "-f", "-"],
        input="table ip no {\nset down { type ipv4_addr; }\nchain in {\n"
        "type filter hook input priority 0;\n"
        "ip daddr @down tcp flags syn reject with tcp reset\n}\n}\n",
    )


def _know(host: Host, other: Host) -> None:
    """A neighbour for good: the machine's table may be full (see ``probes.add_backends``)."""
    address = next(each for each in other.addresses("eth0") if each.startswith("10.0.0."))
    with host.netlink() as netlink:
        netlink.neigh(
            "replace",
            dst=address,
            lladdr=other.mac("eth0"),
            ifindex=host.index("eth0"),
            state="permanent",
        )


def _half(half: Half, daemon: Served, host: Host, events: int) -> None:
    began, pids = time.monotonic(), (daemon.process.pid, daemon.gateway)
    before, figures = [_cpu(pid) for pid in pids], daemon.figures()
    half.reactions.extend(_reactions(daemon, host, events))
    seconds, after = time.monotonic() - began, daemon.figures()
    took = [(_cpu(pid) - cpu) / seconds for pid, cpu in zip(pids, before, strict=True)]
    half.daemon_cpu.append(took[0])
    half.gateway_cpu.append(took[1])
    half.late.append((after.late - figures.late) / max(1.0, after.starts - figures.starts))
    half.daemon_rss = max(half.daemon_rss, _rss(pids[0]))
    half.gateway_rss = max(half.gateway_rss, _rss(pids[1]))


def _reactions(daemon: Served, host: Host, events: int) -> Iterator[float]:
    count, seconds = _total(daemon)
    for number in range(events):
        verb = "add" if number % 2 == 0 else "delete"
        told = _verdicts(daemon)
        # Not in step with anything.
        time.sleep(0.25 + 0.013 * (number % 7))
        address = fast_vip(number // 2 % _FAST)
        host.run(["nft", verb, "element", "ip", "no", "down", f"{{ {address} }}"])
        wait_until(lambda told=told: _verdicts(daemon) > told, 60.0, "it is told")
        before, (count, total) = count, _total(daemon)
        if count > before:
            yield (total - seconds) / (count - before)
        seconds = total


def _verdicts(daemon: Served) -> int:
    log = daemon.log
    return log.count("event=backend-up") + log.count("event=backend-down")


def _total(daemon: Served) -> tuple[float, float]:
    text = daemon.metrics()
    found = [
        re.search(rf"^tula_reaction_seconds_{name} (\S+)$", text, re.MULTILINE)
        for name in ("count", "sum")
    ]
    assert found[0] is not None and found[1] is not None, text[:300]  # noqa: PT018
    return float(found[0][1]), float(found[1][1])


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def _row(name: str, half: Half) -> str:
    cut = statistics.quantiles(half.reactions, n=100, method="inclusive")
    cpu, gateway = statistics.mean(half.daemon_cpu), statistics.mean(half.gateway_cpu)
    return (
        f"| {name} | {len(half.reactions)} | {1e3 * statistics.median(half.reactions):.2f} ms "
        f"| {1e3 * cut[89]:.2f} ms | {1e3 * cut[98]:.2f} ms "
        f"| {1e3 * statistics.mean(half.late):.2f} ms "
        f"| {100 * cpu:.0f} %, {half.daemon_rss:.0f} MiB "
        f"| {100 * gateway:.1f} %, {half.gateway_rss:.0f} MiB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backends", type=int, default=500)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--events", type=int, default=40, help="in each half of a round")
    parser.add_argument("--follow", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ready", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.follow:
        os.nice(19)  # elsewhere they would take nothing from the balancer
        asyncio.run(follow(given.follow, given.ready))
    without, beside = measure(given.backends, given.clients, given.rounds, given.events)
    print(
        "| | failures | to the kernel, median | 90 % | 99 % | probes late | daemon | gateway |\n"
        + "|---" * 8
        + "|"
    )
    print(_row("no clients", without))
    print(_row(f"{given.clients} follow events, a scrape a second", beside))
    ratio = statistics.median(beside.reactions) / statistics.median(without.reactions)
    cpu = statistics.mean(beside.daemon_cpu) / statistics.mean(without.daemon_cpu)
    print(f"\nmedian × {ratio:.2f}, the daemon's CPU × {cpu:.2f}")


if __name__ == "__main__":
    main()
