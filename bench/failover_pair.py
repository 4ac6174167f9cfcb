"""For how long is a VIP silent when the balancer that has it dies?

::

    client ── router ══ lan ══ lb1, lb2 (, lb3), backend-1, -2

A pair by VRRP with 1, 500 and 500 + 500 VIPs, with the balancers' own MAC and the virtual one, and
three balancers by BGP with BFD: the link goes down, the switch's port becomes silent, the engine
is killed. Datagrams go to up to 50 of the VIPs, the first and the last among them, one every 10 ms
in each flow. Silence lasts from the last datagram of a flow that was answered to the next one that
was; the longest of all flows counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# The probe and the daemons of the packet tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.datagrams import Datagrams, Heard, serve_datagrams
from support.high_availability import UDP, Balancers
from support.lab_configurations import backends_of
from tula.lab import (
    BALANCERS_AS,
    ROUTED_VIPS,
    ROUTERS,
    BgpRouter,
    Cluster,
    Host,
    Lab,
    hold,
    many_vips,
    pair,
    three,
    wait_until,
)

_PROBED = 50
_EVERY = 0.01
_OWN: dict[str, Any] = {"vrrp": {"id": 84}}
_VIRTUAL: dict[str, Any] = {"vrrp": {"id": 84, "mac": "virtual"}}


@dataclass(frozen=True, slots=True)
class Case:
    """A number of VIPs of each family, and how balancers have them."""

    name: str
    vips: list[str]
    high_availability: dict[str, Any]

    @property
    def probed(self) -> list[str]:
        """Up to 50 of the VIPs, evenly spaced, the first and the last of each family."""
        found = []
        for family in (4, 6):
            vips = [vip for vip in self.vips if (":" in vip) == (family == 6)]
            most = _PROBED // 2 if ":" in self.vips[-1] else _PROBED
            step = max(1.0, (len(vips) - 1) / max(1, most - 1))
            found += [vips[round(n * step)] for n in range(min(most, len(vips)))]
        return found


CASES = {
    "1": Case("VRRP, 1 VIP", many_vips(1), _OWN),
    "500": Case("VRRP, 500 VIPs", many_vips(500), _OWN),
    "1000": Case("VRRP, 500 + 500 VIPs", many_vips(500, 500), _OWN),
    "virtual": Case("VRRP, virtual MAC, 500 VIPs", many_vips(500), _VIRTUAL),
    "bgp": Case(
        "BGP, three balancers, 1 + 1 VIPs",
        list(ROUTED_VIPS),
        {"bgp": {"as": BALANCERS_AS, "routers": ROUTERS, "bfd": "300ms"}},
    ),
}
EVENTS: dict[str, tuple[Callable[[Host], object], Callable[[Host], object]]] = {
    "link down": (
        lambda lb: lb.set_cable("eth0", plugged=False),
        lambda lb: lb.set_cable("eth0", plugged=True),
    ),
    "silent port": (
        lambda lb: lb.set_silent("eth0"),
        lambda lb: lb.set_silent("eth0", silent=False),
    ),
    "engine killed": (
        lambda lb: lb.kill("keepalived") + lb.kill("bird"),
        lambda _: None,
    ),
}


@contextmanager
def _running(case: Case, directory: Path) -> Iterator[Balancers]:
    """All balancers serve the case's VIPs."""
    with Lab() as lab:
        bgp = "bgp" in case.high_availability
        network: Cluster = (three if bgp else pair)(lab, backends=2, vips=case.vips[:1])
        for backend in network.backends:
            hold(backend, "10.9.100.0/22", "fd09::a:0/112", "fd77::/64")
            serve_datagrams(backend, UDP)
        if bgp:
            BgpRouter(network).start()
        network = replace(network, vips=tuple(case.vips))
        services = {
            "dns": {
                "vip": case.vips,
                "protocol": "udp",
                "ports": [UDP],
                "forwarding": "l2",
                "backends": backends_of(*network.backends),
            }
        }
        with Balancers(network, directory, case.high_availability, services) as made:
            yield made


def measure(case: Case, rounds: int) -> Iterator[tuple[str, list[Heard]]]:
    """What was heard in each round of each event."""
    with tempfile.TemporaryDirectory() as folder, _running(case, Path(folder)) as balancers:
        for event, (break_it, mend) in EVENTS.items():
            heard = []
            for _ in range(rounds):
                balancers.wait_until_serving()
                dying = balancers.taking()[0]
                # By ECMP a VIP's flows go through different balancers.
                flows = len(case.probed) if len(case.probed) > 2 else 30
                client, rate = balancers.cluster.client, round(flows / _EVERY)
                with Datagrams(client, case.probed, UDP, rate, flows) as probe:
                    break_it(dying)
                    wait_until(lambda dying=dying: _others(balancers, dying), 60.0, "the others")
                    mend(dying)
                    balancers.wait_until_serving()
                heard.append(probe.heard)
            yield event, heard


def _others(balancers: Balancers, dying: Host) -> bool:
    """Whether others take what is for the VIPs. By VRRP the dying one may still have them: it
    does not hear that it has lost them."""
    taking = balancers.taking()
    bgp = len(balancers.cluster.lbs) > 2
    return any(lb is not dying for lb in taking) and not (bgp and dying in taking)


def _row(case: str, event: str, heard: list[Heard]) -> str:
    longest = [1000 * one.longest for one in heard]
    lost, sent = (sum(getattr(one, what) for one in heard) for what in ("lost", "sent"))
    return (
        f"| {case} | {event} | {statistics.median(longest):.0f} ms | {max(longest):.0f} ms "
        f"| {lost:,} of {sent:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar=f"{{{','.join(CASES)}}}")
    given = parser.parse_args()
    print("| | event | silence, median | worst | datagrams lost |")
    print("|---" * 5 + "|")
    for name in given.cases:
        for event, heard in measure(CASES[name], given.rounds):
            print(_row(CASES[name].name, event, heard), flush=True)


if __name__ == "__main__":
    main()
