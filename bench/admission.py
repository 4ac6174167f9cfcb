"""What lists of who may connect, and limits, cost a packet: hot, on the slow path, of a new flow.

    .venv/bin/python bench/admission.py [--rounds N] [--ip 4|6] [--protocol udp|tcp]

Subjects are measured in turn as in packets.py, whose rig this is. A packet of a flow takes the slow
path once a minute: here every packet does, since the rules of hot flows are taken out. New flows:
the flow tables are not looked up either. No list contains a client, and no limit is reached.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Sequence

from flows import take_out
from generator import Traffic
from report import Case, markdown
from rig import INTERFACE, Core, Rig
from subjects import Tula

from packets import measure_case

_MOST = 10_000_000


class Admitting(Tula):
    """Tula whose service has such a list, or such limits; ``way`` is what every packet takes."""

    def __init__(self, name: str, keys: dict[str, object], way: str) -> None:
        super().__init__(f"{name}: {way}", {}, None, keys)
        self.way = way

    def prepare(self, rig: Rig) -> None:
        super().prepare(rig)
        if self.way == "hot":
            return
        version = rig.traffic.version
        take_out(rig, f"in.{INTERFACE}", "@hot_")
        if self.way == "new":
            take_out(rig, f"lookup_{rig.traffic.protocol}{version}", "@")


def deny(number: int) -> dict[str, object]:
    """A list of that many prefixes, spread over 128.0.0.0/2 and 2600::/12."""
    chance = random.Random(number)
    spread = chance.sample(range(1 << 22), number)
    four = [f"{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/24" for n in spread[: number // 2]]
    six = [f"2600:{n >> 16:x}:{n & 65535:x}::/48" for n in spread[number // 2 :]]
    return {"deny": [*four, *six]}


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
    traffic = Traffic(parsed.flows, 1, parsed.ip, parsed.protocol)
    lists: dict[str, dict[str, object]] = {
        "none": {},
        "20 prefixes": deny(20),
        "200,000 prefixes": deny(200_000),
    }
    limits: dict[str, dict[str, object]] = {
        "new_per_second": {"limits": {"new_per_second": _MOST}},
        "per_client": {"limits": {"per_client": _MOST // 10}},
    }
    subjects = [
        Admitting(name, keys, way) for way in ("hot", "slow", "new") for name, keys in lists.items()
    ]
    subjects += [Admitting(name, keys, "new") for name, keys in limits.items()]
    core = Core()
    with core.taken():
        case = Case(traffic, 10)
        print(markdown({case: measure_case(core, case, subjects, parsed.rounds, parsed.slices)}))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error.stderr))
