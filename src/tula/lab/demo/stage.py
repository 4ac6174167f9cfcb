"""The demo's network, with servers that run and a balancer that ``tula`` configures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tula.lab.demo.document import FULL_WEIGHT, render_document
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

    def apply(self, weights: dict[str, int]) -> Ran:
        """Write the document with these weights and ``tula apply`` it."""
        self.document.write_text(render_document(weights))
        ran = self.tula("apply", "-f", str(self.document))
        self.weights = weights
        return ran

    def tula(self, *arguments: str) -> Ran:
        """Run ``tula`` on the balancer."""
        begun = time.monotonic()
        output = self.network.lb.tula(*arguments).stdout
        return Ran(output, time.monotonic() - begun)


def build_stage(lab: Lab) -> Stage:
    """Build the network of the picture; ``backend-4`` is ready, but in no document yet."""
    network = routed(lab, clients=2, backends=4)
    servers = [_start_server(backend, network.vips) for backend in network.backends]
    for backend, server in zip(network.backends, servers, strict=True):
        # Frames of 1,500 bytes, as on a cable: aggregates of 64 kB would need fewer
        # acknowledgements and make the balancer's part look smaller than it is.
        set_offload(backend, tso=False, gso=False)
        # A server whose client is gone repeats itself for seconds, not for a quarter of an hour.
        backend.write_sysctl("net.ipv4.tcp_retries2", 4)
        _await_ready(backend, server)
    directory = network.lb.directory
    directory.mkdir(parents=True, exist_ok=True)
    return Stage(network, directory / "tula.yaml", servers)


def first_weights() -> dict[str, int]:
    """Three backends of equal weight."""
    return {f"backend-{number}": FULL_WEIGHT for number in (1, 2, 3)}


def _start_server(backend: Host, vips: tuple[str, ...]) -> Process:
    command = [sys.executable, "-m", "tula.lab.server", backend.name, *vips]
    command += [f"--http={PORT}", f"--udp={PORT}"]
    return backend.popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _await_ready(backend: Host, server: Process) -> None:
    assert server.stdout is not None
    line = server.stdout.readline()
    if line != "ready\n":
        raise LabError(f"the server of {backend.name} does not start: {line.strip()}")
