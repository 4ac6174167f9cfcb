"""The networks of the demo with several balancers, and the daemons on them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tula.lab.bgp import BALANCERS_AS, ROUTERS, BgpRouter
from tula.lab.cluster import Cluster, pair, three
from tula.lab.demo.stage import FULL_WEIGHT, await_ready, start_server
from tula.lab.guard import LabError
from tula.lab.host import Host
from tula.lab.lab import Lab
from tula.lab.process import Process
from tula.lab.wait import wait_until

VRRP = "vrrp: {id: 84}                 # keepalived: one of them has the VIPs"
_PATIENCE = 60.0
_PACKAGES = {"keepalived": "keepalived", "bird": "bird2"}


@dataclass
class ClusterStage:
    """Several balancers, the servers behind them, and the configuration that all of them have."""

    network: Cluster
    servers: list[Process]
    weights: dict[str, int] = field(default_factory=dict)
    router: BgpRouter | None = None
    """Where routes are heard by BGP."""

    @property
    def hosts(self) -> list[Host]:
        """Those whose traffic is counted."""
        return [*self.network.lbs, *self.network.clients, *self.network.backends]

    def state(self, lb: Host) -> str:
        """What a balancer is at the moment, in a word."""
        if not lb.is_on:
            return "dead"
        if self.router is None:
            return "active" if set(self.network.vips) <= set(lb.addresses()) else "standby"
        return "announces" if lb.name in self.network.routes(self.network.vip4) else ""

    def in_state(self, state: str) -> list[Host]:
        """The balancers of which that is true now."""
        return [lb for lb in self.network.lbs if self.state(lb) == state]

    def has_routes(self, vip: str, names: list[str]) -> bool:
        """Whether the router has a route to the VIP by each of these balancers, and no other."""
        return self.network.routes(vip) == names

    def config(self, weights: Mapping[str, int] | None = None) -> str:
        """The configuration, with these weights or those of now."""
        return render_config(self.network, weights or self.weights, bgp=self.router is not None)

    def start(self, lb: Host) -> None:
        """``tula run`` on a balancer."""
        directory = lb.directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tula.yaml").write_text(self.config())
        with (directory / "daemon.log").open("a") as log:
            output = log.fileno()
            lb.start_tula("run", "-f", directory / "tula.yaml", stdout=output, stderr=output)

    def apply(self, weights: dict[str, int]) -> None:
        """Write the configuration on all balancers and apply it, on all at the same time."""
        self.weights = weights
        applying = []
        for lb in self.network.lbs:
            file = lb.directory / "tula.yaml"
            file.write_text(self.config())
            silent = subprocess.DEVNULL
            applying.append(lb.start_tula("apply", "-f", file, stdout=silent, stderr=silent))
        if any(process.wait(_PATIENCE) for process in applying):
            raise LabError("a balancer did not take the configuration")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait; what the daemons said is in the error."""
        try:
            wait_until(condition, _PATIENCE, what)
        except LabError as error:
            logs = [lb.directory / "daemon.log" for lb in self.network.lbs]
            said = [log.read_text().strip().splitlines()[-1:] for log in logs if log.exists()]
            raise LabError(f"{error}; the daemons: {said}") from None


def require_engines() -> None:
    """Raise LabError unless keepalived and BIRD are installed."""
    missing = [
        package
        for name, package in _PACKAGES.items()
        if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None
    ]
    if missing:
        raise LabError(f"this demo needs more programs: apt install {' '.join(missing)}")


def build_pair(lab: Lab) -> ClusterStage:
    """Two balancers by VRRP; nothing of Tula runs yet."""
    return _build(pair(lab, clients=2, backends=3))


def build_three(lab: Lab) -> ClusterStage:
    """Three balancers by BGP; the router listens."""
    network = three(lab, clients=2, backends=3)
    router = BgpRouter(network)
    router.start()
    return _build(network, router)


def _build(network: Cluster, router: BgpRouter | None = None) -> ClusterStage:
    servers = [start_server(backend, network.vips) for backend in network.backends]
    for backend, server in zip(network.backends, servers, strict=True):
        await_ready(backend, server)
    weights = {backend.name: FULL_WEIGHT for backend in network.backends}
    return ClusterStage(network, servers, weights, router)


def serve(stage: ClusterStage) -> float:
    """Start all daemons; returns the seconds until clients are served."""
    begun = time.monotonic()
    for lb in stage.network.lbs:
        stage.start(lb)
    if stage.router is None:
        stage.wait_for(lambda: len(stage.in_state("active")) == 1, "an active balancer")
    else:
        names = [lb.name for lb in stage.network.lbs]
        for vip in stage.network.vips:
            stage.wait_for(partial(stage.has_routes, vip, names), "equal routes")
    return time.monotonic() - begun


def render_config(network: Cluster, weights: Mapping[str, int], bgp: bool) -> str:
    """The configuration of all balancers of the network."""
    balancers = ", ".join(f"{name}: {address}" for name, address in network.balancers.items())
    routers = ", ".join(f'"{router}": {number}' for router, number in ROUTERS.items())
    engine = f"bgp: {{as: {BALANCERS_AS}, routers: {{{routers}}}}}" if bgp else VRRP
    lines = [
        "interfaces: [eth0]",
        f"load_balancers: {{{balancers}}}",
        "high_availability:",
        f"  {engine}",
        "services:",
        "  web:",
        f'    vip: [{network.vip4}, "{network.vip6}"]',
        "    protocol: [tcp, udp]",
        "    ports: [80]",
        "    forwarding: l2",
        "    backends:",
    ]
    for name, weight in weights.items():
        number = 10 + int(name.rpartition("-")[2])
        special = "" if weight == FULL_WEIGHT else f", weight: {weight}"
        lines.append(f'      {name}: {{address: [10.9.0.{number}, "fd09::{number}"]{special}}}')
    return "\n".join(lines) + "\n"
