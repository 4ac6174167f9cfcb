"""Several balancers with one configuration, which know each other's flows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from support.connections import serve_connections
from support.datagrams import serve_datagrams
from support.in_process import InProcess
from support.lab_configurations import backends_of, write_config
from support.packets import address_of
from support.tunnelled import make_backend
from tula.lab import Cluster, Host, serve_tcp

BGP = {"as": 65001, "routers": {"10.9.0.1": 65000}}
MANY = bool(os.environ.get("TULA_SOAK"))


class Balancers:
    """One service "web", TCP and UDP ports 80 and 81 on all VIPs, routed to the balancers."""

    def __init__(
        self, network: Cluster, folder: Path, flows: str = "moved", tunnel: str = "", **keys: Any
    ) -> None:
        """``keys`` are further ones of the service. With a ``tunnel`` the backends are far."""
        self.network = network
        self.folder = folder
        self.flows = flows
        self.tunnel = tunnel
        self.keys = keys
        self.slots = 4093
        self.outer = 4
        """The IP version of the balancers' own addresses."""
        self.backends: dict[str, Any] = {}
        self.of = {lb.name: InProcess(lb) for lb in network.lbs}

    def weights(self, **weights: int) -> dict[str, Any]:
        """The backends by number, as ``b1=100, b2=0``; for ``apply``."""
        found = {}
        for name, weight in weights.items():
            host = self.network.backend(f"backend-{name[1:]}")
            if self.tunnel:
                found[host.name] = {"address": address_of(host, 4), "weight": weight}
            else:
                found |= backends_of(host, weight=weight)
        return found

    def file(self) -> Path:
        """The configuration as it is now, written."""
        to = {"forwarding": "l3", "tunnel": self.tunnel} if self.tunnel else {"forwarding": "l2"}
        web = {"vip": list(self.network.vips), "ports": [80, 81], "protocol": ["tcp", "udp"]}
        return write_config(
            self.folder / "tula.yaml",
            {"web": {**web, "announce": False, "backends": self.backends, **to, **self.keys}},
            load_balancers={lb.name: address_of(lb, self.outer) for lb in self.network.lbs},
            high_availability={"bgp": BGP, "flows": self.flows},
            maglev={"slots": self.slots},
        )

    def apply(self, *lbs: Host, **weights: int) -> None:
        """Brings all balancers, or these, to the configuration with these backends' weights."""
        if weights:
            self.backends = self.weights(**weights)
        file = self.file()
        for lb in lbs or self.network.lbs:
            self.of[lb.name].apply(file)

    def prepare(self) -> None:
        """Far backends, once a configuration names all of them."""
        for host in self.network.backends:
            make_backend(host, self.folder / "tula.yaml")

    def serve(self) -> None:
        """Servers that say their names; on port 81 they do so at once."""
        for backend in self.network.backends:
            serve_tcp(backend, [81])
            serve_connections(backend, 80)
            serve_datagrams(backend, 80)

    def share_again(self, lb: Host) -> None:
        """What its daemon does when another balancer has come back."""
        with lb.enter():
            self.of[lb.name].balancer.share_again()

    def counted(self, lb: Host, counter: str) -> int:
        """A named counter's packets."""
        listed = lb.run(["nft", "list", "counter", "netdev", "tula", counter]).stdout
        return int(listed.split("packets ")[1].split()[0])
