"""The demo's network, with servers that run and a balancer that ``tula`` configures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tula.kernel.tunnels import KernelTunnels
from tula.lab.demo.document import FAR, FAR_VIPS, FULL_WEIGHT, render_document
from tula.lab.guard import LabError
from tula.lab.host import Host
from tula.lab.lab import Lab
from tula.lab.nic import set_offload
from tula.lab.process import Process
from tula.lab.topologies import Network, routed

NAME = os.environ.get("TULA_LAB_NAME", "tula-demo")
"""Prefix of the namespaces of a demo that stays."""

PORT = 80
DRAINED, SPARE = "backend-2", "backend-4"


class Ran(NamedTuple):
    """What a ``tula`` command said, and how long it took."""

    output: str
    seconds: float


@dataclass
class Stage:
    """The network and what the balancer's document says at the moment."""

    network: Network
    document: Path
    servers: list[Process] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    """By backend; those that the document does not list are absent."""
    far: list[Host] = field(default_factory=list)
    """Backends behind the router."""
    tunnel: str = ""
    """How they are reached; empty while the document does not list them."""

    @property
    def backends(self) -> list[Host]:
        """Near and far."""
        return [*self.network.backends, *self.far]

    @property
    def vips(self) -> tuple[str, ...]:
        """Those of the document."""
        return (*self.network.vips, *(FAR_VIPS if self.tunnel else ()))

    def reach_far(self) -> Ran:
        """Apply the document with the second service, and prepare its backends as it says."""
        with self.network.lb.enter():
            missing = KernelTunnels().missing(["vxlan"])
        self.tunnel = "ipip" if missing else "vxlan"
        ran = self.apply(self.weights)
        for host in self.far:
            script = self.tula("backend", "instructions", "-f", str(self.document), host.name)
            host.run(["sh", "-e"], input=script.output)
        return ran

    def apply(self, weights: dict[str, int]) -> Ran:
        """Write the document with these weights and ``tula apply`` it."""
        self.document.write_text(render_document(weights, self.tunnel))
        ran = self.tula("apply", "-f", str(self.document))
        self.weights = weights
        return ran

    def tula(self, *arguments: str) -> Ran:
        """Run ``tula`` on the balancer."""
        begun = time.monotonic()
        output = self.network.lb.tula(*arguments).stdout
        return Ran(output, time.monotonic() - begun)


def build_stage(lab: Lab) -> Stage:
    """Build the network of the picture; ``backend-4`` is ready, but in no document yet, and so are
    the backends behind the router."""
    network = routed(lab, clients=2, backends=4)
    far = _build_far(lab, network)
    servers = [_start_server(backend, network.vips) for backend in network.backends]
    servers += [_start_server(backend, FAR_VIPS) for backend in far]
    for backend, server in zip([*network.backends, *far], servers, strict=True):
        # Frames of 1,500 bytes, as on a cable: aggregates of 64 kB would need fewer
        # acknowledgements and make the balancer's part look smaller than it is.
        set_offload(backend, tso=False, gso=False)
        # A server whose client is gone repeats itself for seconds, not for a quarter of an hour.
        backend.write_sysctl("net.ipv4.tcp_retries2", 4)
        _await_ready(backend, server)
    directory = network.lb.directory
    directory.mkdir(parents=True, exist_ok=True)
    return Stage(network, directory / "tula.yaml", servers, far=far)


def first_weights() -> dict[str, int]:
    """Three backends of equal weight."""
    return {f"backend-{number}": FULL_WEIGHT for number in (1, 2, 3)}


def _build_far(lab: Lab, network: Network) -> list[Host]:
    """Two hosts on a subnet of their own behind the router; no backends yet."""
    assert network.router is not None
    switch = lab.switch("far")
    lab.connect(network.router, switch, "10.7.0.1/24", "fd07::1/64", ifname="eth2")
    hosts = []
    for name, address in FAR.items():
        number = address.rpartition(".")[2]
        addresses = (f"{address}/24", f"fd07::{number}/64")
        hosts.append(lab.host(name, switch, *addresses, gateway=("10.7.0.1", "fd07::1")))
        # The server listens on the VIPs from the start; nobody asks before they are reached.
        hosts[-1].add_address("lo", *(f"{v}/{128 if ':' in v else 32}" for v in FAR_VIPS))
    lab.ready()
    return hosts


def _start_server(backend: Host, vips: tuple[str, ...]) -> Process:
    command = [sys.executable, "-m", "tula.lab.server", backend.name, *vips]
    command += [f"--http={PORT}", f"--udp={PORT}"]
    return backend.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _await_ready(backend: Host, server: Process) -> None:
    assert server.stdout is not None
    line = server.stdout.readline()
    if line != "ready\n":
        raise LabError(f"the server of {backend.name} does not start: {line.strip()}")
