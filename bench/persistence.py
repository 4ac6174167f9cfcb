"""What client persistence costs a packet: the hot path, the slow path, a new flow, a new client.

    .venv/bin/python bench/persistence.py [--rounds N] [--ip 4|6] [--protocol udp|tcp]

Subjects are measured in turn as in packets.py, whose rig this is. A packet of a flow takes the slow
path once a minute: here every packet does, since the rules of hot flows are taken out. New flows:
the flow tables are not looked up either. New clients: nor are clients' entries, so with every
packet its client is forgotten, chosen for and remembered.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from flows import take_out
from generator import Traffic
from report import Case, markdown
from rig import INTERFACE, Core, Rig
from subjects import Tula

from packets import measure_case


class Remembering(Tula):
    """Tula with or without persistence; ``way`` is what every packet takes."""

    def __init__(self, persistence: str, way: str) -> None:
        settings: dict[str, object] = {"timeout": "5m"}
        if persistence != "5m":
            settings |= {"prefix": 24, "prefix6": 64}
        keys: dict[str, object] = {} if persistence == "none" else {"persistence": settings}
        super().__init__(f"{persistence}: {way}", {}, None, keys)
        self.way = way

    def prepare(self, rig: Rig) -> None:
        super().prepare(rig)
        if self.way == "hot":
            return
        version = rig.traffic.version
        take_out(rig, f"in.{INTERFACE}", "@hot_")
        if self.way in ("new flow", "new client"):
            take_out(rig, f"lookup_{rig.traffic.protocol}{version}", "@")
        if self.way == "new client":
            take_out(rig, f"service{version}.s0", f"jump known{version}")
            take_out(rig, f"service{version}.s0", "@keeps_clients")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--slices", type=int, default=10)
    add("--flows", type=int, default=1000)
    add("--ip", type=int, choices=(4, 6), default=4)
    add("--protocol", choices=("udp", "tcp"), default="udp")
    parsed = parser.parse_args(arguments)
    ways = {
        "none": ("hot", "slow", "new flow"),
        "5m": ("hot", "slow", "new flow", "new client"),
        "/24, /64": ("slow", "new flow", "new client"),
    }
    subjects = [Remembering(kind, way) for kind, each in ways.items() for way in each]
    case = Case(Traffic(parsed.flows, 1, parsed.ip, parsed.protocol), 10)
    core = Core()
    with core.taken():
        print(markdown({case: measure_case(core, case, subjects, parsed.rounds, parsed.slices)}))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error.stderr))
