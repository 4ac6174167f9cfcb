"""The traffic at one point in time, as the panel shows it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tula.lab.demo.load import Load
from tula.lab.demo.meter import Bytes, Meter
from tula.lab.demo.stage import FAR, FULL_WEIGHT, Stage


@dataclass(frozen=True)
class BackendView:
    """One backend now."""

    name: str
    weight: int | None
    """None while the configuration does not list it."""
    rate: float
    """Bytes per second that it sends."""
    sent: int
    requests: int


@dataclass(frozen=True)
class View:
    """All that the panel and the plain lines show."""

    seconds: float
    through: Bytes
    """Bytes into and out of the balancer, since the start."""
    past: int
    """Bytes that the backends sent, since the start."""
    through_rate: float
    past_rate: float
    backends: list[BackendView]
    downloads: int
    by_ipv6: int
    datagrams: int
    cut: int

    @property
    def share(self) -> float:
        """The balancer's share of all bytes sent."""
        return self.through.out / max(1, self.through.out + self.past)


class Viewer:
    """Makes views of meter and load."""

    def __init__(self, stage: Stage, load: Load, meter: Meter) -> None:
        self._stage = stage
        self._load = load
        self._meter = meter
        self._begun = time.monotonic()

    def view(self) -> View:
        """The traffic now."""
        total, rate, requests = self._meter.total(), self._meter.rate(), self._load.requests()
        names = [backend.name for backend in self._stage.backends]
        length = max(rate.at, 0.001)
        downloads = list(self._load.downloads)
        return View(
            seconds=time.monotonic() - self._begun,
            through=total.of(["lb"]),
            past=total.of(names).out,
            through_rate=rate.of(["lb"]).out / length,
            past_rate=rate.of(names).out / length,
            backends=[
                BackendView(
                    name,
                    self._stage.weights.get(name, FULL_WEIGHT if name in FAR else None),
                    rate.hosts[name].out / length,
                    total.hosts[name].out,
                    requests[name],
                )
                for name in names
            ],
            downloads=len(downloads),
            by_ipv6=sum(":" in request.vip for request in downloads),
            datagrams=len(self._load.datagrams),
            cut=len(self._load.cut),
        )
