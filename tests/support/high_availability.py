"""A pair or three balancers with running daemons, ready for one of them to die."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.connections import serve_connections
from support.datagrams import serve_datagrams
from support.lab_configurations import backends_of, write_config
from support.running import Running
from tula.lab import Cluster, Host, wait_until

TCP, UDP = 80, 53


class Balancers:
    """Daemons on all balancers of a cluster, by one configuration; a context manager.

    Entering it waits until they serve: with VRRP one of them has the VIPs, with BGP the router has
    routes to all.
    """

    def __init__(
        self,
        cluster: Cluster,
        directory: Path,
        high_availability: Mapping[str, Any],
        services: Mapping[str, Any] | None = None,
        **top: Any,
    ) -> None:
        """``services`` are "web" and "dns" unless given: TCP and UDP, all VIPs, all backends."""
        self.cluster = cluster
        self.services = dict(services or _services(cluster))
        self._directory = directory
        self._top = {
            "load_balancers": cluster.balancers,
            "high_availability": dict(high_availability),
            "maglev": {"slots": 1021},
            **top,
        }
        self._stack = ExitStack()
        self.daemons: dict[str, Running] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.push(self._show_logs)
            for lb in self.cluster.lbs:
                self.daemons[lb.name] = made = Running(lb, self.write(lb))
                stack.callback(made.kill)
            self.start()
            self.wait_until_serving()
            self._stack = stack.pop_all()
        return self

    def start(self) -> None:
        """All daemons, at the same time."""
        for daemon in self.daemons.values():
            daemon.spawn()
        for daemon in self.daemons.values():
            daemon.wait_until_it_answers()

    def _show_logs(self, *what: object) -> None:
        if what[1] is not None:
            for name, daemon in self.daemons.items():
                print(f"{name}:\n{daemon.log}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def serve(self) -> None:
        """Servers on the backends, for ``Datagrams`` and ``Connections``."""
        for backend in self.cluster.backends:
            serve_datagrams(backend, UDP)
            serve_connections(backend, TCP)

    def write(self, lb: Host) -> Path:
        """The configuration's file on this balancer, as it is now: the same on all."""
        directory = self._directory / lb.name
        directory.mkdir(parents=True, exist_ok=True)
        return write_config(directory / "tula.yaml", self.services, **self._top)

    def holders(self) -> list[Host]:
        """The balancers that have all VIPs."""
        vips = set(self.cluster.vips)
        return [lb for lb in self.cluster.lbs if lb.is_on and vips <= set(lb.addresses())]

    @property
    def active(self) -> Host:
        """The one that has the VIPs."""
        (found,) = wait_until(self._one_holder, what="one holder of the VIPs")
        return found

    @property
    def standby(self) -> Host:
        """Another one."""
        active = self.active
        return next(lb for lb in self.cluster.lbs if lb is not active)

    def taking(self) -> list[Host]:
        """The balancers that packets for the VIPs are meant to reach."""
        if "bgp" not in self._top["high_availability"]:
            return self.holders()
        names = self.cluster.routes(self.cluster.vips[0])
        return [lb for lb in self.cluster.lbs if lb.name in names]

    def settle(self) -> list[Host]:
        """Wait until one balancer has the VIPs and the engine runs on all; returns the one."""
        wait_until(self._settled, 60, "one holder of the VIPs, keepalived on all")
        return self.holders()

    def _settled(self) -> bool:
        running = all(lb.is_on and lb.processes("keepalived") for lb in self.cluster.lbs)
        return running and len(self.holders()) == 1

    def _one_holder(self) -> list[Host]:
        found = self.holders()
        return found if len(found) == 1 else []

    def wait_until_serving(self) -> None:
        """Until clients are served as they are when all is well."""
        if "bgp" in self._top["high_availability"]:
            names = [lb.name for lb in self.cluster.lbs]
            for vip in self.cluster.vips:
                wait_until(
                    lambda vip=vip: self.cluster.routes(vip) == names, 60, f"routes to {vip}"
                )
        else:
            _ = self.active


def _services(cluster: Cluster) -> dict[str, Any]:
    common = {
        "vip": list(cluster.vips),
        "forwarding": "l2",
        "backends": backends_of(*cluster.backends),
    }
    return {
        "web": {**common, "ports": [TCP]},
        "dns": {**common, "protocol": "udp", "ports": [UDP]},
    }
