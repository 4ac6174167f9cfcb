"""What it costs that other balancers know flows: the hot path, the slow path, a clone, a new flow.

    .venv/bin/python bench/flows.py [--rounds N] [--ip 4|6] [--protocol udp|tcp]

Subjects are measured in turn as in packets.py, whose rig this is. A packet of a flow takes the slow
path once a minute: here every packet does, since the rules of hot flows are taken out. New flows:
the flow tables are not looked up either. Exceptions: the hash gives no flow what it has, so every
packet is cloned to one peer. `--empty FLOWS` measures instead how long it takes to empty the hot
tables.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from generator import Traffic
from report import Case, markdown
from rig import INTERFACE, Core, Rig, rig
from subjects import Tula

from packets import measure_case
from tula.dataplane.nft.ruleset import MapName
from tula.dataplane.nft.transaction import FlushMap
from tula.kernel.nftables import KernelNftables

_PEER, _PEER_MAC = "10.9.0.3", "02:be:00:00:00:fe"


class Sharing(Tula):
    """Tula as one of two balancers, or alone; ``way`` is what every packet takes."""

    def __init__(self, flows: str, way: str) -> None:
        super().__init__(f"{flows}, {way}", {})
        self.flows = flows
        self.way = way

    def prepare(self, rig: Rig) -> None:
        with rig.lb.netlink() as socket:
            index = rig.lb.index(INTERFACE)
            socket.neigh("replace", dst=_PEER, lladdr=_PEER_MAC, ifindex=index, state="permanent")
        super().prepare(rig)
        if self.way == "hot":
            return
        take_out(rig, f"in.{INTERFACE}", "@hot_")
        if self.way == "new":
            take_out(rig, f"lookup_{rig.traffic.protocol}{rig.traffic.version}", "@")
        if self.way == "exception":
            listed = _listed(rig, "")
            found = re.search(r"set (as_hashed_\d+)", listed)
            assert found is not None
            rig.lb.run(["nft", "flush", "set", "netdev", "tula", found[1]])

    def configuration(self, rig: Rig) -> str:
        text = super().configuration(rig)
        if self.flows == "none":
            return text
        return text + (
            f"load_balancers: {{lb1: 10.9.0.2, lb2: {_PEER}}}\n"
            "high_availability: {bgp: {as: 65001, routers: {10.9.0.9: 65000}}, "
            f"flows: {self.flows}}}\n"
        )


def _listed(rig: Rig, chain: str) -> str:
    what = ["chain", "netdev", "tula", chain] if chain else ["-t", "table", "netdev", "tula"]
    flags = what[:1] if what[0] == "-t" else []
    command = ["nft", "-a", *flags, "list", *what[len(flags) :]]
    return rig.lb.run(command, timeout=60).stdout


def take_out(rig: Rig, chain: str, text: str) -> None:
    """Deletes a chain's rules that contain this text."""
    for line in _listed(rig, chain).splitlines():
        if text in line and "# handle" in line and "comment" in line:
            handle = line.rsplit(" ", 1)[1]
            rig.lb.run(["nft", "delete", "rule", "netdev", "tula", chain, "handle", handle])


def empty(flows: int, traffic: Traffic, core: Core) -> None:
    """Milliseconds of a processor to empty the hot table of that many flows."""
    with rig(Traffic(flows, 1, traffic.version, traffic.protocol), 10) as made:
        Sharing("moved", "hot").prepare(made)
        found = re.search(rf"map (hot_{traffic.protocol}{traffic.version}_\d+)", _listed(made, ""))
        assert found is not None
        name = MapName.parse(found[1])
        assert name is not None
        taken = []
        with made.lb.enter():
            nftables = KernelNftables()
            for _ in range(15):
                core.run(lambda: made.send(flows * 12))
                # Of this thread: it does all of it, and the machine may have others to run.
                start = time.thread_time()
                nftables.run((FlushMap(name),))
                taken.append(1000 * (time.thread_time() - start))
        shown = ", ".join(f"{each:.0f}" for each in sorted(taken))
        print(f"{flows} hot flows: {median(taken):.0f} ms ({shown})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--slices", type=int, default=10)
    add("--flows", type=int, default=1000)
    add("--ip", type=int, choices=(4, 6), default=4)
    add("--protocol", choices=("udp", "tcp"), default="udp")
    add("--empty", type=int, metavar="FLOWS")
    parsed = parser.parse_args(arguments)
    traffic = Traffic(parsed.flows, 1, parsed.ip, parsed.protocol)
    core = Core()
    with core.taken():
        if parsed.empty:
            empty(parsed.empty, traffic, core)
            return
        ways = [
            (flows, way) for way in ("hot", "slow", "new") for flows in ("none", "moved", "all")
        ]
        subjects = [Sharing(*each) for each in [*ways, ("moved", "exception")]]
        case = Case(traffic, 10)
        print(markdown({case: measure_case(core, case, subjects, parsed.rounds, parsed.slices)}))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error.stderr))
