"""The work of one change for health: CPU seconds of planning, of reading counts, of the kernel.

In a namespace of the lab and without a daemon, so that nothing else is measured: a busy machine
makes changes later, and costs them no more CPU. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from tula.cli.common import open_balancer, open_store
from tula.config.load import load_config
from tula.engine.balancer import Balancer
from tula.lab import Lab
from tula.model.health import BackendName, BackendStatus, State

_UP, _DOWN = BackendStatus(State.UP, 100, True), BackendStatus(State.DOWN, 0, False)


def configuration(services: int, backends: int) -> str:
    """Services with four each of so many backends."""
    groups = backends // 4
    return yaml.safe_dump(
        {
            "interfaces": ["eth0"],
            "services": {
                f"s{n}": {
                    "vip": f"10.1.{n // 250}.{n % 250 + 1}",
                    "ports": [80],
                    "forwarding": "l2",
                    "announce": False,
                    "health": {"type": "tcp"},
                    "backends": {
                        f"b{k}": {"address": f"10.0.{n % groups + 1}.{k + 1}"} for k in range(4)
                    },
                }
                for n in range(services)
            },
        }
    )


class Meter:
    """CPU of this process and of what it runs (nft), in ms."""

    def __init__(self) -> None:
        self._before = os.times()

    def read(self) -> tuple[float, float]:
        """Own, and that of programs."""
        now, before = os.times(), self._before
        own = now.user + now.system - before.user - before.system
        programs = now.children_user + now.children_system
        return 1e3 * own, 1e3 * (programs - before.children_user - before.children_system)


def row(balancer: Balancer, name: str, all_up: list[BackendName], moved: list[BackendName]) -> str:
    """Down and up again, ten times; the clock of CPU time ticks coarsely, so means."""
    up = dict.fromkeys(all_up, _UP)
    down = {**up, **dict.fromkeys(moved, _DOWN)}
    cells: list[str] = []
    for statuses, back in ((down, up), (up, down)):
        own, programs = [], []
        for _ in range(10):
            meter = Meter()
            balancer.adjust(statuses)
            first, second = meter.read()
            own.append(first)
            programs.append(second)
            balancer.adjust(back)
        balancer.adjust(statuses)
        cells.append(f"{statistics.mean(own):.0f} + {statistics.mean(programs):.0f} ms")
    return f"| {name} | " + " | ".join(cells) + " |"


def rows(services: int, backends: int) -> Iterable[str]:
    """For one backend of one service, and for one that many share."""
    groups = backends // 4
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        lb = lab.host("lb", lab.switch("switch"), "10.0.0.2/8")
        path = Path(folder, "tula.yaml")
        path.write_text(configuration(services, backends))
        config = load_config(path).config
        names = [(s.name, b.name) for s in config.services for b in s.backends]
        with lb.enter():
            balancer = open_balancer(open_store(Path(folder, "state")))
            balancer.reconcile(config, dict.fromkeys(names, _UP))
            shared = [(f"s{n}", "b0") for n in range(0, services, groups)]
            title = f"{services:,} services, 4 of {backends} backends each"
            yield row(balancer, f"{title}: of one service", names, [("s5", "b0")])
            yield row(balancer, f"{title}: of {len(shared):,}", names, shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--services", type=int, default=1000)
    given = parser.parse_args()
    print("| a backend | goes down: own + nft | comes back: own + nft |")
    print("|---" * 3 + "|")
    for backends in (4, 400):
        for line in rows(given.services, backends):
            print(line, flush=True)


if __name__ == "__main__":
    main()
