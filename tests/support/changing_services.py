"""Documents one after the other, each with other services than the last."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from support.lab_configurations import backends_of
from tula.lab import Network


class ChangingServices:
    """The other services of one configuration after the next, drawn at random."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._drawn = random.Random(2)
        self._real = backends_of(*network.backends)
        self._far = {
            f"far-{n}": {"address": [f"10.50.{n >> 8}.{n & 255}", f"fd50::{n:x}"]}
            for n in range(2, 1102)
        }

    def configurations(self, count: int) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
        """Services and interfaces; some outgrow the maps of those before."""
        for step in range(count):
            services = {f"s{n}": self._service(n) for n in range(6) if self._drawn.random() < 0.35}
            if self._drawn.random() < 0.5:  # what no service names on the measured VIPs
                services["rest"] = self._service(6) | {"ports": "any", "vip": self._network.vips}
            if step % 40 == 20:
                services["many-backends"] = self._service(7) | {"backends": self._far}
            if step % 40 == 30:
                services["many-ports"] = self._service(8) | {"ports": list(range(20000, 21500))}
            yield services, ("eth0", "eth1") if self._drawn.random() < 0.3 else ("eth0",)

    def _service(self, number: int) -> dict[str, Any]:
        drawn = self._drawn
        vips = [*self._network.vips, "10.9.0.110", "fd09::110", "10.9.0.111"]
        first = 10000 + 1000 * number
        everyone = self._far | self._real
        far = drawn.sample(sorted(self._far), drawn.choice([0, 0, 1]))
        return {
            "vip": drawn.sample(vips, drawn.randint(1, 4)),
            "protocol": drawn.choice([["tcp"], ["udp"], ["tcp", "udp"]]),
            "ports": [
                first + drawn.randrange(9),
                *([f"{first + 100}-{first + drawn.randint(101, 900)}"] * drawn.randint(0, 1)),
            ],
            "forwarding": "l2",
            "affinity": drawn.choice(["client", "connection"]),
            "backends": {
                name: everyone[name] | {"weight": drawn.choice([0, 1, 100])}
                for name in [*drawn.sample(sorted(self._real), drawn.randint(0, 3)), *far]
            },
        }
