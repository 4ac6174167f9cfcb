"""From a backend's death to the last packet sent to it, and from a decision to the kernel.

::

    client        lb          backend-1, -2, -3          decisions: lb ═══ four hosts, each with
       │           │             │   (VIPs on lo)         all VIPs on lo and every fourth backend
    ═══╧═══════════╧═════════════╧═══

Deaths: a service for each way to check, all at the same backends; clients send datagrams and open
connections all the time, and a tap at the balancer sees the last frame of a client's to the dead
backend's MAC. Decisions: the daemon's own tula_reaction_seconds, by many services.
"""

from __future__ import annotations

import argparse
import select
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from probes import Daemon, answering

from tula.lab import Host, Lab, Network, flat, serve_tcp, serve_udp, wait_until

_PORT = 8000
_CASES = (
    {"interval": "100ms", "timeout": "100ms", "fall": 2},
    {"interval": "100ms", "timeout": "100ms", "fall": 3},
    {"interval": "1s", "timeout": "1s", "fall": 2},
    {"interval": "1s", "timeout": "1s", "fall": 3},
    {"interval": "1s", "timeout": "500ms", "fall": 3, "fast_interval": "200ms"},
    {"interval": "5s", "timeout": "1s", "fall": 2},
    {"interval": "5s", "timeout": "1s", "fall": 3},
    {"interval": "5s", "timeout": "1s", "fall": 3, "fast_interval": "1s"},
)
_RESET = struct.pack("ii", 1, 0)


class Tap:
    """When the last frame of a client's went to a MAC, by the port that it was for."""

    def __init__(self, lb: Host, mac: str, client: str) -> None:
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._client = socket.inet_aton(client)
        self._socket = lb.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)  # SO_RCVBUFFORCE
        self._socket.bind(("eth0", 0x0003))
        self.last: dict[int, float] = {}
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._ending = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._ending:
            if select.select([self._socket], [], [], 0.1)[0]:
                frame = self._socket.recv(128)
                if frame[:6] == self._mac and frame[26:30] == self._client:
                    self.last[int.from_bytes(frame[36:38], "big")] = time.monotonic()


@contextmanager
def traffic(client: Host, vip: str, ports: list[int]) -> Iterator[None]:
    """Every 4 ms and for each port a datagram of one of 32 flows, and a new connection."""
    ending = threading.Event()
    udp = []
    for _ in range(32):
        opened = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        udp.append(opened)

    def send() -> None:
        asked: deque[socket.socket] = deque()
        turn = 0
        while not ending.wait(0.004):
            turn += 1
            for port in ports:
                with suppress(OSError):
                    udp[turn % len(udp)].sendto(b"?", (vip, port))
                opened = client.socket(socket.AF_INET, socket.SOCK_STREAM)
                opened.setblocking(False)
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                opened.connect_ex((vip, port))
                asked.append(opened)
            while len(asked) > 8 * len(ports):
                asked.popleft().close()
        for opened in asked:
            opened.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
        for opened in udp:
            opened.close()


def deaths(rounds: int) -> list[str]:
    """The rows of the first table."""
    ports = [_PORT + number for number in range(len(_CASES))]
    found: list[list[float]] = [[] for _ in _CASES]
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        network = flat(lab, backends=3)
        for backend in network.backends:
            serve_tcp(backend, ports)
            serve_udp(backend, ports)
        daemon = Daemon(network.lb, _configuration(network), Path(folder))
        try:
            wait_until(lambda: daemon.figures().up == 3 * len(_CASES), 60.0, "all backends up")
            with traffic(network.client, network.vip4, ports):
                for number in range(rounds):
                    # Not in step with the probes.
                    time.sleep(1.0 + 0.37 * number)
                    for case, seconds in enumerate(_death(network, daemon, number, ports)):
                        found[case].append(seconds)
        finally:
            daemon.stop()
    return [_row(case, seconds) for case, seconds in zip(_CASES, found, strict=True)]


def _death(network: Network, daemon: Daemon, number: int, ports: list[int]) -> list[float]:
    dead = network.backends[number % 3]
    client = next(a for a in network.client.addresses("eth0") if ":" not in a)
    tap = Tap(network.lb, dead.mac(), client)
    try:
        time.sleep(0.5)
        started = time.monotonic()
        dead.set_link("eth0", False)
        wait_until(lambda: daemon.figures().up == 2 * len(ports), 60.0, "it is down for all")
        time.sleep(0.5)
        lasted = [tap.last.get(port, started) - started for port in ports]
    finally:
        tap.close()
    dead.set_link("eth0", True)
    wait_until(lambda: daemon.figures().up == 3 * len(ports), 60.0, "it is up again")
    return lasted


def _configuration(network: Network) -> dict[str, Any]:
    backends = {
        host.name: {"address": next(a for a in host.addresses("eth0") if ":" not in a)}
        for host in network.backends
    }
    return {
        "interfaces": ["eth0"],
        "services": {
            f"case-{number}": {
                "vip": network.vip4,
                "ports": [_PORT + number],
                "protocol": ["tcp", "udp"],
                "forwarding": "l2",
                "health": {"type": "tcp", "rise": 1, **case},
                "backends": backends,
            }
            for number, case in enumerate(_CASES)
        },
    }


def _row(case: dict[str, Any], seconds: list[float]) -> str:
    fast = case.get("fast_interval", "")
    return (
        f"| {case['interval']} | {fast} | {case['timeout']} | {case['fall']} "
        f"| {statistics.median(seconds):.2f} s | {min(seconds):.2f} to {max(seconds):.2f} s |"
    )


def decisions(rounds: int, services: int, backends: int) -> list[str]:
    """The rows of the second table, for services with four of so many backends each."""
    groups = backends // 4
    vips = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(services)]
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        switch = lab.switch("switch")
        lb = lab.host("lb", switch, "10.0.0.2/8")
        hosts = [lab.host(f"h{n}", switch, f"10.0.0.{n + 3}/8") for n in range(4)]
        for number, host in enumerate(hosts):
            _prepare(lb, host, [_address(group, number) for group in range(groups)], vips)
        configuration = {
            "interfaces": ["eth0"],
            "services": {
                f"s{n}": {
                    "vip": vip,
                    "ports": [80],
                    "forwarding": "l2",
                    "announce": False,
                    "health": {"type": "tcp", "interval": "5s", "rise": 1, "fall": 2}
                    | {"fast_interval": "1s"},
                    "backends": {f"b{k}": {"address": _address(n % groups, k)} for k in range(4)},
                }
                for n, vip in enumerate(vips)
            },
        }
        for host in hosts:
            answering(host)
        daemon = Daemon(lb, configuration, Path(folder))
        try:
            wait_until(lambda: daemon.figures().up == 4 * services, 60.0, "all backends up")
            sharing = [vips[n] for n in range(0, services, groups)]
            name = f"{services:,} services, 4 of {backends} backends each"
            return [
                _decided(daemon, hosts[0], [vips[7]], rounds, f"{name} | one of one service"),
                _decided(daemon, hosts[0], sharing, rounds, f"{name} | one of {len(sharing):,}"),
            ]
        finally:
            if "--log" in sys.argv:
                print(daemon.log[-3000:])
            daemon.stop()


def _decided(daemon: Daemon, host: Host, vips: list[str], rounds: int, name: str) -> str:
    down, cycles, cpu = [], [], []
    for _ in range(rounds):
        time.sleep(2.0)
        before = daemon.samples()
        time.sleep(1.0)
        told = daemon.log.count("event=backend-")
        busy, start = daemon.cpu(), time.monotonic()
        listed = ", ".join(vips)
        host.run(
            ["nft", "-f", "-"],
            input="table ip no {\nchain in {\ntype filter hook input priority 0;\n"
            f"ip daddr {{ {listed} }} tcp flags syn reject with tcp reset\n}}\n}}\n",
        )
        # By the log: rendering metrics of 4,000 backends would be most of what is measured.
        _wait_for_events(daemon, told + len(vips))
        cpu.append((daemon.cpu() - busy) / (time.monotonic() - start))
        time.sleep(0.5)
        after = daemon.samples()
        cycles.append(after["tula_reaction_seconds_count"] - before["tula_reaction_seconds_count"])
        seconds = after["tula_reaction_seconds_sum"] - before["tula_reaction_seconds_sum"]
        down.append(seconds / cycles[-1])
        host.run(["nft", "delete", "table", "ip", "no"])
        _wait_for_events(daemon, told + 2 * len(vips))
    return (
        f"| {name} | {1e3 * statistics.median(down):.0f} ms | {1e3 * min(down):.0f} to "
        f"{1e3 * max(down):.0f} ms | {statistics.median(cycles):.0f} "
        f"| {100 * statistics.median(cpu):.0f} % |"
    )


def _wait_for_events(daemon: Daemon, count: int) -> None:
    wait_until(lambda: daemon.log.count("event=backend-") >= count, 60.0, "the events")


def _address(group: int, number: int) -> str:
    return f"10.0.{group // 50 + 1}.{group % 50 * 4 + number + 1}"


def _prepare(lb: Host, host: Host, addresses: list[str], vips: list[str]) -> None:
    for name in ("all", "eth0"):
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_ignore", 1)
        host.write_sysctl(f"net/ipv4/conf/{name}/arp_announce", 2)
    with host.netlink() as netlink:
        for address in addresses:
            netlink.addr("add", index=host.index("eth0"), address=address, prefixlen=8)
        index = host.index("lo")
        for vip in vips:
            netlink.addr("add", index=index, address=vip, prefixlen=32)
    mac = host.mac()
    with lb.netlink() as netlink:
        index = lb.index("eth0")
        for address in addresses:
            netlink.neigh("replace", dst=address, lladdr=mac, ifindex=index, state="permanent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--only", choices=["deaths", "decisions"])
    parser.add_argument("--log", action="store_true")
    given = parser.parse_args()
    if given.only != "decisions":
        print("| interval | fast interval | timeout | fall | to the last packet | of all rounds |")
        print("|---" * 6 + "|")
        print("\n".join(deaths(given.rounds)), flush=True)
    if given.only != "deaths":
        print("\n| | backends down | to the kernel | of all rounds | changes | CPU |")
        print("|---" * 6 + "|")
        for backends in (4, 400):
            print("\n".join(decisions(given.rounds, given.services, backends)), flush=True)


if __name__ == "__main__":
    main()
