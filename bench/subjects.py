"""What is measured: each subject makes the balancer of a rig forward, by its own means."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Protocol, Self

from generator import SERVICE_PORT, Traffic
from rig import INTERFACE, Rig
from template import Template

from tula.lab import LabError, wait_until

FARMS = 50
"""More farms than this and nftlb's daemon takes minutes (the time grows with the cube): its rules
are then written as it writes them, and loaded by nft."""

SMALLEST = 1024
"""The least size of a table of connections."""

_KEY = "bench"


def tula_of(checkout: Path | None, environment: dict[str, str]) -> dict[str, str]:
    """The environment in which ``python -m tula`` is that of a checkout; None: of this one."""
    if checkout is None:
        return environment
    return {**environment, "PYTHONPATH": str(checkout.resolve() / "src")}


class Subject(Protocol):
    """One way to forward."""

    @property
    def name(self) -> str:
        """What it is called in the tables."""

    @property
    def alone(self) -> bool:
        """Whether its rig has the sink in the balancer's place."""

    def prepare(self, rig: Rig) -> None:
        """Sets the balancer up."""


class Alone:
    """The source and the sink without a balancer: what is to be taken out."""

    name = "source and sink alone"
    alone = True

    def prepare(self, rig: Rig) -> None:
        """Nothing is there to forward."""


class Routing:
    """The kernel forwards by its routes; one neighbour is the way to all VIPs."""

    name = "kernel routing"
    alone = False

    def prepare(self, rig: Rig) -> None:
        """The rig's balancer is a router as it is."""


class Tula:
    """Tula by its own command; ``checkout`` is that of another commit, to be measured beside."""

    alone = False

    def __init__(
        self,
        name: str,
        connections: dict[str, object],
        checkout: Path | None = None,
        service: dict[str, object] | None = None,
    ) -> None:
        """``service`` are further keys of every service."""
        self.name = name if checkout is None else f"{name}, {checkout.name}"
        self.connections = connections
        self.service = service or {}
        self.checkout = checkout

    def prepare(self, rig: Rig) -> None:
        path = rig.lb.directory / "bench.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.configuration(rig))
        environment = tula_of(self.checkout, rig.lb.environment())
        command = [sys.executable, "-m", "tula", "apply", "-f", path]
        rig.lb.run(command, env=environment, timeout=600)

    def configuration(self, rig: Rig) -> str:
        """YAML as JSON, which it includes, but for the backends: an anchor keeps it short."""
        traffic = rig.traffic
        backends = {f"b{n}": {"address": a} for n, a in enumerate(rig.addresses())}
        keys = {"forwarding": "l2", "announce": False, "protocol": traffic.protocol}
        lines = [
            f"interfaces: [{INTERFACE}]",
            f"connections: {json.dumps(self.connections)}",
            f"defaults: {json.dumps(keys | self.service)}",
            "services:",
        ]
        for number in range(traffic.services):
            shown = "*all" if number else f"&all {json.dumps(backends)}"
            vip = f'"{traffic.vip(number)}"'
            lines += [f"  s{number}: {{vip: {vip}, ports: [{SERVICE_PORT}], backends: {shown}}}"]
        return "\n".join(lines) + "\n"


class FullTula(Tula):
    """With tables of connections that others' entries fill: every packet goes by hash."""

    def __init__(self, name: str, checkout: Path | None = None) -> None:
        super().__init__(name, {"size": SMALLEST}, checkout)

    def prepare(self, rig: Rig) -> None:
        super().prepare(rig)
        version, protocol = rig.traffic.version, rig.traffic.protocol
        zeros = " . 0" * ({4: 4, 6: 2}[version] - 1)
        entries = ", ".join(f"{n}{zeros} timeout 1h : 0" for n in range(SMALLEST))
        table = f"netdev tula {protocol}{version}_{SMALLEST}"
        rig.lb.run(["nft", "-f", "-"], input=f"add element {table} {{ {entries} }}")


class Shape:
    """A ruleset from a file, in the notation of template.py."""

    alone = False

    def __init__(self, path: Path, slots: int | None = None) -> None:
        self.name = path.stem if slots is None else f"{path.stem}, {slots:,} slots"
        self.path = path
        self.slots = slots

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``FILE`` or, for a size of the hash table, ``FILE@SLOTS``."""
        path, _, slots = text.partition("@")
        return cls(Path(path), int(slots) if slots else None)

    def prepare(self, rig: Rig) -> None:
        text = Template(rig, self.slots).expand(self.path.read_text())
        rig.lb.run(["nft", "-f", "-"], input=text, timeout=600)


class Nftlb:
    """nftlb, programmed by its daemon: Direct Server Return, hash of client and port."""

    alone = False
    name = "nftlb"
    rules: ClassVar[Path] = Path(__file__).with_name("nftlb.nft")

    def prepare(self, rig: Rig) -> None:
        if rig.traffic.services > FARMS:
            Shape(self.rules).prepare(rig)
            return
        unpacked = Path(sys.prefix) / "nftlb/usr/sbin"  # by get-nftlb
        program = shutil.which("nftlb", path=f"{unpacked}:/usr/sbin:/sbin")
        if program is None:
            raise LabError(f"nftlb is not here: bench/get-nftlb {sys.prefix}/nftlb")
        prefix = {4: 32, 6: 128}[rig.traffic.version]
        vips = [str(rig.traffic.vip(number)) for number in range(rig.traffic.services)]
        # It takes the interface that holds the VIP for the one to listen on.
        rig.lb.add_address(INTERFACE, *(f"{vip}/{prefix}" for vip in vips))
        arguments = [program, "-k", _KEY, "-H", "127.0.0.1", "-l", "0"]
        rig.lb.popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        farms = [self._farm(rig, f"s{number}", vip) for number, vip in enumerate(vips)]
        wait_until(lambda: self._request(rig, "GET") is not None, 10, "nftlb's daemon")
        answer = self._request(rig, "POST", json.dumps({"farms": farms}))
        rules = rig.lb.run(["nft", "list", "table", "netdev", "nftlb"], check=False).stdout
        if answer is None or rules.count("jhash") != len(farms):
            raise LabError(f"nftlb did not make its rules: {answer}")

    def _farm(self, rig: Rig, name: str, vip: str) -> dict[str, object]:
        traffic: Traffic = rig.traffic
        return {
            "name": name,
            "family": f"ipv{traffic.version}",
            "virtual-addr": vip,
            "virtual-ports": str(SERVICE_PORT),
            "mode": "dsr",
            "protocol": traffic.protocol,
            "scheduler": "hash",
            "sched-param": "srcip srcport",
            "state": "up",
            "backends": [
                {"name": f"b{number}", "ip-addr": address, "weight": "1", "state": "up"}
                for number, address in enumerate(rig.addresses())
            ],
        }

    def _request(self, rig: Rig, method: str, body: str = "") -> str | None:
        url = "http://127.0.0.1:5555/farms"
        command = ["curl", "-sS", "-H", f"Key: {_KEY}", "-X", method, url, "-d", "@-"]
        done = rig.lb.run(command, input=body, check=False, timeout=600)
        return done.stdout if done.returncode == 0 else None
