"""What a backend that is the balancer itself costs the packets of the others.

    .venv/bin/python bench/own_backend.py [--rounds N] [--slices N]

Subjects are measured in turn as in packets.py, whose rig this is: hot flows without such a backend,
with one (of weight 0: forwarding is a chain), and with a rule for one more balancer before them.
"""

from __future__ import annotations

import argparse
import json

from generator import Traffic
from report import Case, markdown
from rig import INTERFACE, Core, Rig
from subjects import Tula

from packets import measure_case


class Serving(Tula):
    """Tula with a backend that is itself; ``peers`` are other balancers with rules."""

    def __init__(self, name: str, peers: int) -> None:
        super().__init__(name, {})
        self.peers = peers

    def configuration(self, rig: Rig) -> str:
        itself = json.dumps({"itself": {"address": "self", "weight": 0}})[1:-1]
        return super().configuration(rig).replace("&all {", f"&all {{{itself}, ")

    def prepare(self, rig: Rig) -> None:
        super().prepare(rig)
        for number in range(self.peers):
            match = f"@ll,64,32 0x00b00b{number:02x} @ll,48,16 0x0254"
            rig.lb.run(["nft", "add", "chain", "netdev", "tula", "forwarded"])
            rule = f"insert rule netdev tula in.{INTERFACE} {match} jump forwarded"
            rig.lb.run(["nft", *rule.split()])


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=10)
    parsed = parser.parse_args()
    subjects = [
        Tula("without", {}),
        Serving("with one", 0),
        Serving("and another balancer", 1),
        Serving("and two others", 2),
    ]
    case = Case(Traffic(1000, 1), 10)
    core = Core()
    with core.taken():
        print(markdown({case: measure_case(core, case, subjects, parsed.rounds, parsed.slices)}))


if __name__ == "__main__":
    main()
