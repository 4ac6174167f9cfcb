"""The demo's network: running servers, and a balancer that ``tula`` configures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tula.kernel.tunnels import KernelTunnels
from tula.lab.guard import LabError
from tula.lab.host import Host, set_offload
from tula.lab.lab import Lab
from tula.lab.process import Process
from tula.lab.topologies import VIP4, VIP6, Network, routed

NAME = os.environ.get("TULA_LAB_NAME", "tula-demo")
"""Prefix of the namespaces of a demo that is kept."""

PORT = 80
DRAINED, SPARE = "backend-2", "backend-4"
FULL_WEIGHT = 100
FAR_VIPS = ("10.9.0.101", "fd09::101")
FAR = {"far-1": "10.7.0.11", "far-2": "10.7.0.12"}
"""Backends behind the router, with the addresses where their tunnels end."""


class CommandResult(NamedTuple):
    """What a ``tula`` command printed, and how long it took."""

    output: str
    seconds: float


@dataclass
class Stage:
    """The network, and the balancer's current configuration."""

    network: Network
    configuration: Path
    servers: list[Process] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    """By backend; those that the configuration does not list are absent."""
    far: list[Host] = field(default_factory=list)
    """Backends behind the router."""
    tunnel: str = ""
    """The tunnel to them; empty while the configuration does not list them."""

    @property
    def backends(self) -> list[Host]:
        """On the balancer's subnet, then behind the router."""
        return [*self.network.backends, *self.far]

    @property
    def hosts(self) -> list[Host]:
        """Those whose traffic is counted."""
        return [self.network.lb, *self.network.clients, *self.backends]

    @property
    def vips(self) -> tuple[str, ...]:
        """Those in the configuration."""
        return (*self.network.vips, *(FAR_VIPS if self.tunnel else ()))

    def reach_far(self) -> CommandResult:
        """Apply the configuration with the second service, and set its backends up."""
        with self.network.lb.enter():
            missing = KernelTunnels().missing(["vxlan"])
        self.tunnel = "ipip" if missing else "vxlan"
        ran = self.apply(self.weights)
        for host in self.far:
            script = self.tula("backend", "instructions", "-f", str(self.configuration), host.name)
            host.run(["sh", "-e"], input=script.output)
        return ran

    def apply(self, weights: dict[str, int]) -> CommandResult:
        """Write the configuration with these weights and ``tula apply`` it."""
        self.configuration.write_text(render_config(weights, self.tunnel))
        ran = self.tula("apply", "-f", str(self.configuration))
        self.weights = weights
        return ran

    def tula(self, *arguments: str) -> CommandResult:
        """Run ``tula`` on the balancer."""
        begun = time.monotonic()
        output = self.network.lb.tula(*arguments).stdout
        return CommandResult(output, time.monotonic() - begun)


def build_stage(lab: Lab) -> Stage:
    """Build the network of the drawing; ``backend-4`` and the backends behind the router are ready,
    but not in the configuration yet."""
    network = routed(lab, clients=2, backends=4)
    far = _build_far(lab, network)
    servers = [start_server(backend, network.vips) for backend in network.backends]
    servers += [start_server(backend, FAR_VIPS) for backend in far]
    for backend, server in zip([*network.backends, *far], servers, strict=True):
        await_ready(backend, server)
    directory = network.lb.directory
    directory.mkdir(parents=True, exist_ok=True)
    return Stage(network, directory / "tula.yaml", servers, far=far)


def first_weights() -> dict[str, int]:
    """Three backends of equal weight."""
    return {f"backend-{number}": FULL_WEIGHT for number in (1, 2, 3)}


def _build_far(lab: Lab, network: Network) -> list[Host]:
    """Two hosts on a subnet of their own behind the router; not backends yet."""
    assert network.router is not None
    switch = lab.switch("far")
    lab.connect(network.router, switch, "10.7.0.1/24", "fd07::1/64", ifname="eth2")
    hosts = []
    for name, address in FAR.items():
        number = address.rpartition(".")[2]
        addresses = (f"{address}/24", f"fd07::{number}/64")
        hosts.append(lab.host(name, switch, *addresses, gateway=("10.7.0.1", "fd07::1")))
        # The server can listen on the VIPs from the start; no request arrives yet.
        hosts[-1].add_address("lo", *(f"{v}/{128 if ':' in v else 32}" for v in FAR_VIPS))
    lab.ready()
    return hosts


def start_server(backend: Host, vips: tuple[str, ...]) -> Process:
    """A web server and one of UDP; ``await_ready`` waits for both."""
    command = [sys.executable, "-m", "tula.lab.server", backend.name, *vips]
    command += [f"--http={PORT}", f"--udp={PORT}"]
    return backend.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def await_ready(backend: Host, server: Process) -> None:
    """Until it serves; and have the backend send as a real one does."""
    assert server.stdout is not None
    line = server.stdout.readline()
    if line != "ready\n":
        raise LabError(f"the server on {backend.name} did not start: {line.strip()}")
    # Frames of 1,500 bytes, as on a real link: aggregates of 64 kB would need fewer
    # acknowledgements and make the balancer's share look smaller than it is.
    set_offload(backend, tso=False, gso=False)
    # A server whose client is gone retransmits for seconds, not for a quarter of an hour.
    backend.write_sysctl("net.ipv4.tcp_retries2", 4)


def render_config(weights: Mapping[str, int], tunnel: str = "") -> str:
    """The configuration with these backends, such as ``{"backend-1": 100, "backend-2": 0}``; with a
    ``tunnel``, also the service whose backends are behind the router."""
    lines = [
        "interfaces: [eth0]                  # where requests arrive",
        "services:",
        "  web:",
        f'    vip: [{VIP4}, "{VIP6}"]  # the address that clients use',
        "    protocol: [tcp, udp]",
        "    ports: [80]",
        "    forwarding: l2                  # rewrite the MAC address",
        "    backends:",
    ]
    for name, weight in weights.items():
        number = 10 + int(name.rpartition("-")[2])
        special = "" if weight == FULL_WEIGHT else f", weight: {weight}"
        lines.append(f'      {name}: {{address: [10.9.0.{number}, "fd09::{number}"]{special}}}')
    if tunnel:
        vips = f'{FAR_VIPS[0]}, "{FAR_VIPS[1]}"'
        lines += [
            "  films:",
            f"    vip: [{vips}]  # another address",
            "    protocol: [tcp, udp]",
            "    ports: [80]",
            "    forwarding: l3                  # in a tunnel",
            f"    tunnel: {tunnel}",
            "    backends:",
        ]
        lines += [f"      {name}: {{address: {address}}}" for name, address in FAR.items()]
    return "\n".join(lines) + "\n"
