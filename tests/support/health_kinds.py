"""A daemon with a service for each kind of check, way and IP version, and what it asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.applications import (
    NAME,
    Answer,
    DatagramApplication,
    StreamApplication,
    http,
    line,
    record,
)
from support.health_matrix import EMULATED, PATIENCE
from support.lab_configurations import backends_of, write_config
from support.packets import FAMILIES, address_of, vip_of
from support.probe_servers import certificate
from support.running import Running
from tula.lab import Host, Lab, LabError, Network, flat, wait_until

WEB = {"path": "/ready", "host": NAME, "status": 200, "body": "ready"}
LINE = {"send": "ping", "expect": "pong"}
TALK = 'exec 3<>"/dev/tcp/$TULA_ADDRESS/$TULA_PORT" && read -r said <&3 && echo "$said" && '
CHECKS: dict[str, dict[str, Any]] = {
    "tcp": LINE,
    "http": WEB,
    "https": WEB,
    "udp": LINE,
    "dns": {"name": NAME},
    "icmp": {},
    "script": {"command": ["bash", "-c", f'{TALK}[ "$said" = ready ]'], "timeout": "5s"},
}
HEALTHY: dict[str, Answer] = {
    "tcp": line("pong"),
    "http": http(200, "all is ready"),
    "https": http(200, "all is ready"),
    "udp": line("pong"),
    "dns": record(),
    "script": line("ready"),
}
WAYS = ("dsr", "direct")
PORTS = {
    (kind, via, family): 7000 + 10 * k + 2 * w + (family == 6)
    for k, kind in enumerate(CHECKS)
    for w, via in enumerate(WAYS)
    for family in FAMILIES
}
Application = StreamApplication | DatagramApplication


class Applications:
    """The network, its daemon, and what backends run."""

    def __init__(self, network: Network, daemon: Running, tls: Any) -> None:
        self.network = network
        self.daemon = daemon
        self.first = network.backends[0]
        self._tls = tls
        self._running = {
            (host.name, kind): self._start(host, kind)
            for host in network.backends
            for kind in HEALTHY
        }

    def _start(self, host: Host, kind: str) -> Application:
        ports = [port for key, port in PORTS.items() if key[0] == kind]
        made: Application
        if kind in ("udp", "dns"):
            made = DatagramApplication(host, ports, HEALTHY[kind])
        else:
            tls = self._tls if kind == "https" else None
            made = StreamApplication(host, ports, HEALTHY[kind], tls, reads=kind != "script")
        return host.owns(made.start())

    @contextmanager
    def answering(self, kind: str, answer: Answer) -> Iterator[None]:
        """The first backend's application of this kind says something else."""
        application = self._running[self.first.name, kind]
        application.answer = answer
        yield
        application.answer = HEALTHY[kind]

    @contextmanager
    def stopped(self, kind: str) -> Iterator[None]:
        """It does not run."""
        self._running[self.first.name, kind].close()
        yield
        self._running[self.first.name, kind] = self._start(self.first, kind)

    def wait_for_down(self, *reasons: tuple[str, str, str]) -> None:
        """Waits until, of all, the first backend alone is down, by these kinds and ways, and says
        so: a pattern for what follows the target."""
        wanted = {
            f"{kind}-{via}-{family}/{self.first.name}": self._where(kind, via, family) + pattern
            for kind, via, pattern in reasons
            for family in FAMILIES
        }
        shown: dict[str, str] = {}

        def reached() -> bool:
            found = self.daemon.backends()
            shown.clear()
            shown.update({n: f"{b['state']}: {b['reason']}" for n, b in found.items()})
            return all(
                re.fullmatch(f"down: {wanted[name]}" if name in wanted else "up: ", text)
                for name, text in shown.items()
            )

        try:
            wait_until(reached, PATIENCE)
        except LabError:
            off = {n: t for n, t in shown.items() if t != "up: "}
            raise AssertionError(f"wanted {wanted}, found {off}") from None

    def _where(self, kind: str, via: str, family: int) -> str:
        if kind == "script":
            return "script bash: "
        to = vip_of(self.network, family) if via == "dsr" else address_of(self.first, family)
        port = "" if kind == "icmp" else f" port {PORTS[kind, via, family]}"
        return re.escape(f"{kind} to {to}{port}: ")


@contextmanager
def running_applications(directory: Path) -> Iterator[Applications]:
    """All of it, healthy."""
    pace = {"interval": "1s" if EMULATED else "250ms", "rise": 1, "fall": 2}
    pace |= {"timeout": "2s" if EMULATED else "1s"}
    with Lab() as lab:
        network = flat(lab, clients=1, backends=2)
        for name in ("net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"):
            network.backends[0].write_sysctl(name, 0)  # each refused datagram is told
        services = {
            f"{kind}-{via}-{family}": {
                "vip": vip_of(network, family),
                "protocol": "udp" if kind in ("udp", "dns") else "tcp",
                "ports": [port],
                "forwarding": "l2",
                "health": {"type": kind, "via": via, **pace, **CHECKS[kind]},
                "backends": backends_of(*network.backends),
            }
            for (kind, via, family), port in PORTS.items()
        }
        path = write_config(directory / "tula.yaml", services, maglev={"slots": 251})
        daemon = Running(network.lb, path)
        made = Applications(network, daemon, certificate(directory, NAME, days=5))
        with daemon:
            made.wait_for_down()
            yield made
