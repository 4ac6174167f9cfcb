"""A network whose backends are behind a router, reached by the configuration's tunnels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from support.in_process import InProcess
from support.lab_configurations import write_config
from support.packets import address_of
from tula.agent.instructions import plan_instructions
from tula.config.load import load_config
from tula.lab import Host, Lab, remote, serve_tcp, serve_udp
from tula.model.config import Tunnel

LINK_KINDS = {
    ("ipip", 4): ("sit", "ipip"),
    ("ipip", 6): ("ip6tnl",),
    ("gre", 4): ("gre",),
    ("gre", 6): ("ip6gre",),
    ("gue", 4): ("sit", "ipip", "fou"),
    ("gue", 6): ("ip6tnl", "fou"),
    ("vxlan", 4): ("vxlan",),
    ("vxlan", 6): ("vxlan",),
}
"""What the kernel must have, by tunnel and version of the outer addresses."""


UPLOADS = 81


class Tunnelled:
    """One service "web", TCP and UDP ports 80 and 81 on all VIPs, by all backends."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        tunnel: str,
        outer: int,
        backends: int = 2,
        vips: Sequence[str] | None = None,
    ):
        """``outer`` is the version of the tunnel's own addresses."""
        self.network = remote(lab, backends=backends, vips=vips)
        self.lb, self.client = self.network.lb, self.network.client
        self.here = InProcess(self.lb)
        self.path = directory / "tula.yaml"
        self.tunnel = Tunnel(tunnel)
        self.slots = 251  # the least: a VM that is emulated has other things to do
        self.services: dict[str, Any] = {
            "web": {
                "vip": list(self.network.vips),
                "protocol": ["tcp", "udp"],
                "ports": [80, UPLOADS],
                "forwarding": "l3",
                "tunnel": tunnel,
                "backends": {
                    host.name: {"address": address_of(host, outer)}
                    for host in self.network.backends
                },
            }
        }

    @property
    def web(self) -> dict[str, Any]:
        """The service; change it, then apply."""
        found: dict[str, Any] = self.services["web"]
        return found

    def configuration(self) -> Path:
        """Writes it as it is now."""
        balancers = {f"lb{v}": address_of(self.lb, v) for v in (4, 6)}
        keys = {"load_balancers": balancers, "maglev": {"slots": self.slots}}
        return write_config(self.path, self.services, **keys)

    def apply(self) -> bool:
        """Brings the balancer to the configuration; whether anything changed."""
        return bool(self.here.apply(self.configuration()))

    def prepare(self) -> None:
        """Makes hosts into backends, exactly as the instructions say."""
        for host in self.network.backends:
            make_backend(host, self.path)

    def clamp(self) -> None:
        """The instructions' part about the MSS, again."""
        for host in self.network.backends:
            make_backend(host, self.path, only="tula_backend")

    def serve(self) -> None:
        """Servers that say their names."""
        for backend in self.network.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])


def make_backend(host: Host, configuration: Path, only: str = "") -> None:
    """Runs the instructions for the backend of this name; ``only`` those with this word."""
    steps = plan_instructions(load_config(configuration).config, host.name)
    assert steps is not None
    commands = [command for step in steps for command in step.commands if only in command]
    host.run(["sh", "-e", "-c", "\n".join(commands)])


class Outside:
    """The outer headers of a frame, and what is inside them."""

    def __init__(self, frame: bytes) -> None:
        packet = Ether(frame)
        self.ip = packet.getlayer(IP) if packet.type == 0x0800 else packet.getlayer(IPv6)
        self.inside: Packet | None = None
        self.what = ""
        self.port = 0
        if self.ip is None:
            return
        version = 4 if isinstance(self.ip, IP) else 6
        number = self.ip.proto if version == 4 else self.ip.nh
        payload = bytes(self.ip.payload)
        if number in (4, 41):
            self.what, self.inside = "ipip", _inner(payload)
        elif number == 47:
            self.what, self.inside = "gre", _inner(bytes(GRE(payload).payload))
        elif number == 17 and int.from_bytes(payload[2:4], "big") == 5555:
            self.what, self.inside = "gue", _inner(payload[12:])
        elif number == 17 and int.from_bytes(payload[2:4], "big") == 4789:
            inner = VXLAN(payload[8:]).payload
            self.what, self.inside = "vxlan", inner.getlayer(IP) or inner.getlayer(IPv6)
        if number == 17:
            self.port = int.from_bytes(payload[:2], "big")

    @property
    def ttl(self) -> int:
        """TTL or hop limit."""
        return int(self.ip.ttl if isinstance(self.ip, IP) else self.ip.hlim)

    @property
    def traffic_class(self) -> int:
        """TOS or traffic class: DSCP and ECN."""
        return int(self.ip.tos if isinstance(self.ip, IP) else self.ip.tc)

    @property
    def flow(self) -> tuple[str, str, int]:
        """Client, VIP and client's port of the packet inside."""
        assert self.inside is not None
        transport = self.inside.getlayer(TCP) or self.inside.getlayer(UDP)
        return self.inside.src, self.inside.dst, transport.sport


def _inner(data: bytes) -> Packet:
    return IP(data) if data[0] >> 4 == 4 else IPv6(data)
