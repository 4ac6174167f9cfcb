"""Two UDP services on one VIP, by different backends: what belongs where is easily told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.crafted import Crafted
from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from tula.lab import Lab, Network, flat, serve_udp

PORTS = {"one": 53, "two": 54}
OURS = {"one": {"backend-1", "backend-2"}, "two": {"backend-3", "backend-4"}}
WAYS: dict[str, Any] = {
    "table": {},
    "by hash": {"connections": {"enabled": False}},
    "in turn": {"defaults": {"scheduler": "rr"}},
}
"""Keys of the configuration: how a backend is chosen, and held."""


def two_services(lab: Lab) -> Network:
    """Four backends that answer for both, one client, and a balancer that answers on port 99."""
    made = flat(lab, clients=1, backends=4)
    for backend in made.backends:
        serve_udp(backend, PORTS.values())
    serve_udp(made.lb, [99])
    return made


class TwoServices:
    """Both services applied; applied again with other weights."""

    def __init__(self, network: Network, directory: Path, **top: Any) -> None:
        self.network = network
        self.crafted = Crafted(network)
        self._directory = directory
        self._top = top
        network.lb.run(["nft", "delete", "table", "netdev", "tula"], check=False)
        self.apply()

    def apply(self, **weights: int) -> None:
        services = {}
        for name, hosts in (("one", (0, 1)), ("two", (2, 3))):
            backends = backends_of(*(self.network.backends[number] for number in hosts))
            for backend, weight in weights.items():
                if backend.replace("_", "-") in backends:
                    backends[backend.replace("_", "-")]["weight"] = weight
            services[name] = service_of(
                self.network, protocol="udp", ports=[PORTS[name]], backends=backends
            )
        configuration = write_config(self._directory / "tula.yaml", services, **self._top)
        InProcess(self.network.lb).apply(configuration)
