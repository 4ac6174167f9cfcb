"""The doctor in a lab: a set-up, faults injected into it, and what is found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.machines import differences
from support.snapshots import snapshot
from support.tunnelled import Tunnelled
from tula.lab import Host, Lab, Network, TcpServer, routed, serve_tcp, serve_udp

PATIENCE = "4" if os.environ.get("TULA_VM") else "1.2"
"""Seconds that the doctor waits for replies: the VM is emulated."""

Found = list[dict[str, Any]]


class Setup:
    """A balancer that has applied a configuration, backends that serve, and the doctor."""

    def __init__(self, network: Network, path: Path, services: dict[str, Any], **top: Any) -> None:
        self.network = network
        self.lb, self.backends = network.lb, network.backends
        self.path = path
        self.services = services
        self.top = top
        self.servers: dict[tuple[str, int], TcpServer] = {}
        self.here = InProcess(self.lb)
        self.interfaces: tuple[str, ...] = ("eth0",)

    @property
    def first(self) -> Host:
        """The backend into which faults are injected."""
        return self.backends[0]

    def serve(self, tcp: tuple[int, ...] = (80,), udp: tuple[int, ...] = (53,)) -> None:
        """Has every backend serve on all its addresses."""
        for host in self.backends:
            for port in tcp:
                self.servers[host.name, port] = serve_tcp(host, [port])
            serve_udp(host, udp)

    def write(self) -> None:
        """Writes the configuration as it is now."""
        write_config(self.path, self.services, self.interfaces, **self.top)

    def apply(self) -> None:
        """Writes and applies it."""
        self.write()
        self.here.apply(self.path)

    def examine(self) -> Found:
        """What the doctor finds, but that nothing is checked, which most set-ups leave out; checks
        that it leaves the machine as it was."""
        before = snapshot(self.lb)
        arguments = ("doctor", "-f", self.path, "--json", "--patience", PATIENCE)
        result = call_tula(self.lb, *arguments, check=False)
        assert result.returncode in (0, 1), result.stderr
        found: Found = json.loads(result.stdout)["findings"]
        assert result.returncode == int(any(f["severity"] != "note" for f in found))
        changed = differences(before, snapshot(self.lb))
        assert not changed, changed
        return [finding for finding in found if finding["id"] != "no-health-checks"]

    def fix(self, finding: dict[str, Any]) -> None:
        """Runs its commands as printed, on the machine that they are for."""
        host = self.lb if finding["on"] == "here" else self.network.lab[finding["on"]]
        env = host.environment()
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        for command in finding["commands"]:
            host.run(["sh", "-c", command], env=env)

    def nft(self, host: Host, rules: str) -> None:
        """Loads rules in a host."""
        host.run(["nft", "-f", "-"], input=rules)


@dataclass(frozen=True)
class Fault:
    """One fault: how it is injected, the id and place of its finding, and the fix.

    ``by_hand`` fixes what no command can; without it the printed commands are run. ``certain`` is
    None where it does not matter.
    """

    id: str
    make: Callable[[Setup], object]
    finding: str
    where: str = "backend-1"
    by_hand: Callable[[Setup], object] | None = None
    certain: bool | None = True
    also: frozenset[str] = field(default_factory=frozenset)
    """Ids of further findings that it may cause."""

    def __str__(self) -> str:
        return self.id


def is_of(fault: Fault, finding: dict[str, Any]) -> bool:
    """Whether the finding reports it."""
    return finding["id"] == fault.finding and finding["where"] == fault.where


def check_found(setup: Setup, faults: list[Fault]) -> None:
    """Injects the faults into a healthy set-up; each is found, fixed as told, and gone."""
    assert setup.examine() == []
    for fault in faults:
        fault.make(setup)
    found = setup.examine()
    for fault in faults:
        mine = [finding for finding in found if is_of(fault, finding)]
        assert mine, (fault.id, found)
        if fault.certain is not None:
            assert {finding["certain"] for finding in mine} == {fault.certain}, mine
        if fault.by_hand is None:
            assert all(finding["commands"] for finding in mine), mine
    expected = {fault.finding for fault in faults}.union(*(fault.also for fault in faults))
    assert {finding["id"] for finding in found} <= expected, found
    for fault in faults:
        if fault.by_hand is not None:
            fault.by_hand(setup)
        else:
            for finding in found:
                if is_of(fault, finding):
                    setup.fix(finding)
    assert setup.examine() == []


def l2_setup(lab: Lab, directory: Path) -> Setup:
    """L2: clients behind a router; TCP port 80 and UDP port 53 on an IPv4 and an IPv6 VIP."""
    network = routed(lab, clients=1, backends=2)
    services = {
        "web": service_of(network),
        "dns": service_of(network, protocol="udp", ports=[53]),
    }
    setup = Setup(network, directory / "tula.yaml", services, load_balancers=balancers(network))
    setup.serve()
    setup.apply()
    return setup


def l3_setup(lab: Lab, directory: Path, tunnel: str = "vxlan", outer: int = 4) -> Setup:
    """L3: backends behind a router, prepared exactly as the instructions say."""
    made = Tunnelled(lab, directory, tunnel, outer)
    made.web["ports"] = [80]
    made.web["protocol"] = "tcp"
    keys = {"load_balancers": balancers(made.network), "maglev": {"slots": made.slots}}
    setup = Setup(made.network, made.path, made.services, **keys)
    setup.apply()
    made.prepare()
    setup.serve(udp=())
    return setup


def balancers(network: Network) -> dict[str, str]:
    """The balancer by both of its addresses."""
    four, six = (a for a in network.lb.addresses("eth0") if a in ("10.9.0.2", "fd09::2"))
    return {"lb4": four, "lb6": six}
