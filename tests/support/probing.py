"""A balancer that checks its backends through the data path: three services, by where the VIP is.

``here`` is held by the balancer; ``routed`` is on its subnet and held by nobody (or by another
machine); to ``away`` it has no route at all.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoRequest

from support.in_process import InProcess
from support.lab_configurations import write_config
from tula.cli.common import open_store
from tula.config.load import load_config
from tula.engine.assemble import kernel_data_path
from tula.engine.host_settings import HostSettings
from tula.kernel.network import KernelNetwork
from tula.kernel.probe_route import KernelProbeRoute
from tula.kernel.sysctls import KernelSysctls
from tula.lab import Host
from tula.model.health import ProbeTarget
from tula.plan.probes import PlannedProbe, ProbePlan, plan_probes, probe_destinations
from tula.plan.routes import backend_addresses, plan_routes

VIPS = {
    "here": ("10.9.0.100", "fd09::100"),
    "routed": ("10.9.0.101", "fd09::101"),
    "away": ("10.66.0.100", "fd66::100"),
}
ALL_VIPS = tuple(vip for vips in VIPS.values() for vip in vips)
PORT = 80
_SO_MARK, _SO_PRIORITY = 36, 12
_MSS = 1200


def services(backends: dict[str, Any], *wheres: str, **keys: Any) -> dict[str, Any]:
    """A service for each of these places of its VIPs."""
    return {
        where: {
            "vip": list(VIPS[where]),
            "protocol": ["tcp", "udp"],
            "ports": [PORT],
            "announce": where == "here",
            "health": {"type": "tcp"},
            "backends": backends,
            **keys,
        }
        for where in wheres
    }


class Probing:
    """What the daemon does for its probes, in a host of the lab."""

    def __init__(self, lb: Host, path: Path, services: dict[str, Any], **top: Any) -> None:
        self.lb = lb
        self.here = InProcess(lb)
        self.path = path
        self.services = services
        self.top = top
        self.plan = ProbePlan()
        store = open_store(Path(lb.environment()["TULA_STATE_DIR"]))
        self._store = store
        self.settings = HostSettings(KernelProbeRoute(), KernelSysctls(), store)

    def apply(self) -> None:
        """The configuration, then what the machine needs for its probes."""
        self.here.apply(write_config(self.path, self.services, **self.top))
        self.plan_only()
        assert self.ensure() == []

    def plan_only(self) -> ProbePlan:
        """Plans the probes anew, by the machine as it is."""
        config = load_config(self.path).config
        with self.lb.enter():
            host = KernelNetwork().view(backend_addresses(config) | probe_destinations(config))
        routes = plan_routes(config, host)
        path = kernel_data_path()
        memory = path.recall(self._store.remembered().path)
        self.plan = plan_probes(config, host, routes, lambda s, b: path.probe_socket(s, b, memory))
        assert self.plan.problems == ()
        return self.plan

    def ensure(self) -> list[str]:
        """Rule, route and sysctls."""
        with self.lb.enter():
            settled = self.settings.ensure(self.plan, KernelNetwork().view(()).links)
        assert settled.routed
        return list(settled.problems)

    def of(self, where: str, family: int) -> list[PlannedProbe]:
        """The probes of one service, to its VIP of one IP version."""
        return [
            probe
            for probe in self.plan.probes
            if probe.service == where and probe.target.address.version == family
        ]


@contextmanager
def probe_socket(
    host: Host, target: ProbeTarget, kind: int, protocol: int = 0, timeout: float = 5.0
) -> Iterator[socket.socket]:
    """A socket as the daemon's probes have it."""
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    with host.socket(family, kind, protocol) as made:
        made.settimeout(timeout)
        made.setsockopt(socket.SOL_SOCKET, _SO_MARK, target.mark)
        made.setsockopt(socket.SOL_SOCKET, _SO_PRIORITY, target.priority)
        made.bind((str(target.source), 0))
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _MSS)
        yield made


def ask_tcp(host: Host, target: ProbeTarget, timeout: float = 5.0, size: int = 0) -> str:
    """Who answers a connection; with ``size`` so many bytes are sent before, for a ``Sink``.

    "" when nobody does.
    """
    with probe_socket(host, target, socket.SOCK_STREAM, timeout=timeout) as made:
        try:
            made.connect((str(target.address), target.port))
            if size:
                made.sendall(bytes(size))
                made.shutdown(socket.SHUT_WR)
            return made.recv(100).decode().strip()
        except OSError:
            return ""


def ask_udp(host: Host, target: ProbeTarget, timeout: float = 5.0) -> str:
    """Who answers a datagram, from the VIP itself."""
    with probe_socket(host, target, socket.SOCK_DGRAM, timeout=timeout) as made:
        try:
            made.connect((str(target.address), target.port))
            made.send(b"?")
            return made.recv(100).decode().partition(" ")[0]
        except OSError:
            return ""


def ping(host: Host, target: ProbeTarget, number: int, timeout: float = 5.0) -> bool:
    """Whether the VIP answers an echo request with this identifier."""
    four = target.address.version == 4
    protocol = socket.IPPROTO_ICMP if four else socket.IPPROTO_ICMPV6
    with probe_socket(host, target, socket.SOCK_RAW, protocol, timeout) as made:
        # The kernel writes ICMPv6's checksum (RFC 3542, section 3.1).
        request = ICMP(id=number) if four else ICMPv6EchoRequest(id=number)
        made.sendto(bytes(request), (str(target.address), 0))
        try:
            while True:
                answer, sender = made.recvfrom(2000)
                head = answer[(answer[0] & 0xF) * 4 :] if four else answer
                kind, identifier = head[0], struct.unpack_from("!H", head, 4)[0]
                if (kind, identifier) == (0 if four else 129, number):
                    return str(sender[0]) == str(target.address)
        except TimeoutError:
            return False
