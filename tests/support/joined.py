"""Bare machines that become backends by ``tula backend join``, in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import write_config
from support.packets import address_of
from support.tunnelled import LINK_KINDS
from tula.lab import Host, Lab, Network, flat, remote

KINDS: dict[tuple[str, int], Sequence[str]] = {("l2", 4): (), **LINK_KINDS}
"""Forwarding or tunnel, and the version of the outer addresses; what the kernel must have."""


def alone(kind: str, outer: int) -> object:
    """The parameters ``kind, outer`` of a test, and what its kernel must have."""
    marks = pytest.mark.link_kinds(*KINDS[kind, outer])
    return pytest.param(kind, outer, marks=marks, id=f"{kind}-ipv{outer}")


def together(kinds: tuple[str, ...], outer: int) -> object:
    """The parameters ``kinds, outer`` of a test whose backends have tunnels of all these kinds."""
    needed = sorted({name for kind in kinds for name in KINDS[kind, outer]})
    marks = pytest.mark.link_kinds(*needed)
    return pytest.param(kinds, outer, marks=marks, id=f"{'+'.join(kinds)}-ipv{outer}")


def agent(host: Host, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """``tula backend ARGUMENTS --json`` in the host, and what it printed."""
    done = call_tula(host, "backend", *arguments, "--json", check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout) if status == 0 else {"error": done.stderr}


class Joined:
    """One service on all VIPs, TCP and UDP port 80, by backends of one kind."""

    def __init__(self, lab: Lab, directory: Path, kind: str, outer: int, backends: int = 2) -> None:
        """Bare machines: nobody has joined, nothing is applied."""
        self.kind, self.outer = kind, outer
        if kind == "l2":
            self.network: Network = flat(lab, backends=backends, prepared=False)
        else:
            self.network = remote(lab, backends=backends)
        self.lb, self.client, self.backends = (
            self.network.lb,
            self.network.client,
            self.network.backends,
        )
        self.path = directory / "tula.yaml"
        self.balancer = InProcess(self.lb)
        forwarding = {"forwarding": "l2"} if kind == "l2" else {"forwarding": "l3", "tunnel": kind}
        self.services: dict[str, Any] = {
            "web": {
                "vip": list(self.network.vips),
                "protocol": ["tcp", "udp"],
                "ports": [80],
                "backends": {host.name: self._backend(host) for host in self.backends},
                **forwarding,
            }
        }

    def _backend(self, host: Host) -> dict[str, Any]:
        versions = (4, 6) if self.kind == "l2" else (self.outer,)
        return {"address": [address_of(host, version) for version in versions]}

    def offer(self, *kinds: str) -> None:
        """In place of the one service one for each of these tunnels, named so, at ports from 80."""
        web = next(iter(self.services.values()))
        self.services = {
            kind: {**web, "ports": [port], "forwarding": "l3", "tunnel": kind}
            for port, kind in enumerate(kinds, 80)
        }

    def configuration(self, **top: Any) -> Path:
        """Writes the configuration as it is now."""
        balancers = {f"lb{v}": address_of(self.lb, v) for v in (4, 6)}
        keys = {"load_balancers": balancers, "maglev": {"slots": 251}, **top}
        return write_config(self.path, self.services, **keys)

    def join(self) -> None:
        """All backends, then the balancer."""
        path = self.configuration()
        for host in self.backends:
            agent(host, "join", "-f", path)
        self.balancer.apply(path)
