"""The traffic of several balancers: which of them carries it, and what broke."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tula.lab.demo.load import DOWNLOADS, Load
from tula.lab.demo.meter import Meter
from tula.lab.demo.pair_stage import ClusterStage
from tula.lab.demo.panel import ANSWERS, CHANGED, REQUESTS, WRONG, Shown, bar, megabytes


@dataclass(frozen=True)
class Row:
    """A balancer or a backend now."""

    name: str
    state: str
    rate: float
    """Bytes per second that it sends."""
    count: int
    """Requests answered, or kilobytes forwarded so far."""


@dataclass(frozen=True)
class ClusterView:
    """All that is shown of a moment."""

    seconds: float
    balancers: list[Row]
    backends: list[Row]
    size: int
    """Bytes of a download."""
    downloads: int
    datagrams: int
    lost: int
    """Datagrams without an answer, asked again."""
    cut: int
    """Downloads that broke, and were retried."""


class ClusterViewer:
    """Makes views of meter and load."""

    def __init__(self, stage: ClusterStage, load: Load, meter: Meter, size: int) -> None:
        self._stage, self._load, self._meter, self._size = stage, load, meter, size
        self._begun = time.monotonic()

    def view(self) -> ClusterView:
        """The traffic now."""
        total, rate, requests = self._meter.total(), self._meter.rate(), self._load.requests()
        length, network = max(rate.at, 0.001), self._stage.network
        weights = self._stage.weights
        return ClusterView(
            time.monotonic() - self._begun,
            [
                Row(
                    lb.name,
                    self._stage.state(lb),
                    rate.hosts[lb.name].out / length,
                    total.hosts[lb.name].out // 1000,
                )
                for lb in network.lbs
            ],
            [
                Row(
                    backend.name,
                    "" if weights[backend.name] else "weight 0",
                    rate.hosts[backend.name].out / length,
                    requests[backend.name],
                )
                for backend in network.backends
            ],
            self._size,
            len(self._load.downloads),
            len(self._load.datagrams),
            len(self._load.lost),
            len(self._load.cut),
        )


def show(view: ClusterView) -> Shown:
    """What the screen shows of it."""
    return Shown(lambda width: panel(view, width), headings(view), line(view))


def panel(view: ClusterView, width: int) -> RenderableType:
    """The balancers, the backends, and what broke."""
    inner = width - 4
    most = [max([1.0, *(row.rate for row in rows)]) for rows in (view.balancers, view.backends)]
    rows = [
        *(_row(row, most[0], inner, REQUESTS, "kB forwarded") for row in view.balancers),
        Text(),
        *(_row(row, most[1], inner, ANSWERS, "requests") for row in view.backends),
    ]
    style = WRONG if view.cut else ANSWERS
    subtitle = (
        f"{view.downloads:,} downloads, [{style}]{view.cut or 'none'} broken[/]; "
        f"{view.datagrams:,} UDP, {view.lost:,} asked again"
    )
    title = f"{DOWNLOADS} downloads of {megabytes(view.size)} at a time, and UDP"
    return Panel(
        Group(*rows), title=title, subtitle=subtitle, box=ROUNDED, width=width, border_style="dim"
    )


def _row(row: Row, most: float, width: int, style: str, unit: str) -> Text:
    figures = f"{row.rate / 1e6:.2f} MB/s".rjust(11) + f"{row.count:>8,} {unit:<12}"
    room = width - 11 - 11 - 32
    changed = {"dead": WRONG, "weight 0": CHANGED}.get(row.state, "")
    line = Text(f"{row.name:<11}", changed).append(bar(row.rate / most, room), style)
    return line.append(f" {row.state:<10}", changed or style).append(figures)


def headings(view: ClusterView) -> str:
    """The header of the plain lines."""
    balancers = "".join(f"{row.name:>7}" for row in view.balancers)
    backends = "".join(f" {row.name}" for row in view.backends)
    width = len(balancers)
    return (
        f"{'':6}{'kB through':>{width}}  requests answered so far by\n"
        f"{'':6}{balancers} {backends}  broken"
    )


def line(view: ClusterView) -> str:
    """One line: what went through each balancer, and what each backend answered."""
    through = "".join(f"{row.count:>7}" for row in view.balancers)
    answered = "".join(f" {row.count:>{len(row.name)}}" for row in view.backends)
    return f"{view.seconds:>4.0f} s{through} {answered}{view.cut:>8}"
