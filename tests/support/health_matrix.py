"""One way of forwarding, every place of a VIP and both families, through the faults that occur.

Two waves of faults at backends, so that a dozen of them cost the time of one; ``seen`` keeps what
the daemon said of each backend, and ``answered`` who answered clients meanwhile.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from support.health_names import AT_THE_VIP, SERVICES, Named, wanted_reason
from support.lab_configurations import write_config
from support.packets import FAMILIES, address_of
from support.running import Running
from support.tunnelled import make_backend
from tula.cli.client import DaemonError, NoDaemonError
from tula.lab import (
    Host,
    Lab,
    LabError,
    Network,
    TcpServer,
    flat,
    flows,
    remote,
    serve_tcp,
    wait_until,
)

EMULATED = bool(os.environ.get("TULA_VM"))
"""Whether this machine is the VM, and ten times slower."""
QUICK = (
    {"interval": "2s", "timeout": "3s", "rise": 1, "fall": 2}
    if EMULATED
    else {"interval": "200ms", "timeout": "400ms", "rise": 1, "fall": 2}
)
"""Of each check."""
PATIENCE = 120.0


class HealthMatrix:
    """A lab with a daemon; ``tunnel`` "" is L2, ``outer`` the version of tunnels' addresses."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        tunnel: str,
        outer: int,
        services: Sequence[Named] = SERVICES,
    ) -> None:
        self.tunnel = tunnel
        self.services = services
        vips = [*dict.fromkeys(named.vip for named in services)]
        made = remote(lab, backends=3, vips=vips) if tunnel else flat(lab, 1, 3, vips=vips)
        self.network: Network = made
        self.path = directory / "tula.yaml"
        self.daemon = Running(made.lb, self.path)
        self.seen: dict[str, dict[str, dict[str, Any]]] = {}
        self.answered: dict[str, dict[Named, set[str]]] = {}
        self.servers: dict[tuple[str, int], TcpServer] = {}
        self._ports = 21000
        self._route(lab)
        self._write(outer)
        if tunnel:
            with ThreadPoolExecutor() as pool:  # many programs, each slow in the VM
                list(pool.map(lambda host: make_backend(host, self.path), made.backends))
        for host in made.backends:
            for port in (80, 81, 82, 83):
                self.servers[host.name, port] = serve_tcp(host, [port])

    def run(self) -> None:
        """All that happens, from a healthy start to a healthy end."""
        _, second, third = self.network.backends
        for host in (second, third):
            # Else one error a second is told to the balancer, and a dozen services wait for it.
            host.write_sysctl("net/ipv4/icmp_ratelimit", 0)
            host.write_sysctl("net/ipv6/icmp/ratelimit", 0)
        with self.daemon:
            self._see("healthy")
            self._at_vips(second)
            self._delete_tunnels(third)
            self._see("first")
            self._repair_vips(second)
            if self.tunnel:
                make_backend(third, self.path)
            self._see("repaired")
            second.set_cable("eth0", False)
            self._filter(third, 1)
            self._see("second")
            second.set_cable("eth0", True)
            self._filter(third, 2)
            self._see("repaired again")

    def _filter(self, host: Host, value: int) -> None:
        """Reverse-path filtering where a tunnel ends: strict (1) or loose (2)."""
        for name in host.interfaces():
            if name.startswith("tula-"):
                host.write_sysctl(f"net/ipv4/conf/{name}/rp_filter", value)

    def wanted(self, when: str, named: Named, backend: str) -> str:
        """What the reason must be then, as a pattern, of a backend that is to be down; else ""."""
        return wanted_reason(when, named, backend, bool(self.tunnel))

    def amiss(self, when: str, named: Named, backend: str) -> str:
        """What was found in place of what is wanted; nothing when all is as it should be."""
        reason = self.wanted(when, named, backend)
        found = self.seen[when][f"{named}/{backend}"]
        state, said = str(found["state"]), str(found["reason"])
        if state == ("down" if reason else "up") and re.fullmatch(reason, said):
            return ""
        return f"{when}: {named}/{backend} is {state}: {said}; wanted: {reason or 'up'}"

    def all_amiss(self, when: str) -> list[str]:
        """That of all services and backends."""
        pairs = product(self.services, (backend.name for backend in self.network.backends))
        return [found for pair in pairs if (found := self.amiss(when, *pair))]

    def up(self, when: str, named: Named) -> set[str]:
        """The backends that are to be up then."""
        names = [backend.name for backend in self.network.backends]
        return {name for name in names if not self.wanted(when, named, name)}

    def _route(self, lab: Lab) -> None:
        """The way to VIPs that are "away", for clients alone; one machine more holds "held"."""
        lb, network = self.network.lb, self.network
        near = network.router or network.client
        for version, away in ((4, "10.66.0.0/24"), (6, "fd66::/64")):
            near.add_route(away, via=address_of(lb, version))
            if network.router is not None:
                far = "10.7.0.0/24" if version == 4 else "fd07::/64"
                lb.run(["ip", f"-{version}", "route", "del", "default"])
                lb.add_route(far, via=address_of(network.router, version))
                clients = "10.8.0.0/24" if version == 4 else "fd08::/64"
                lb.add_route(clients, via=address_of(network.router, version))
        lb.write_sysctl("net/ipv4/conf/eth0/rp_filter", 1)
        other = lab.host("other", network.lan, "10.9.0.3/24", "fd09::3/64")
        other.add_address("eth0", *{_host_route(n.vip) for n in self.services if n.place == "held"})
        serve_tcp(other, [80, 81, 82, 83])

    def _write(self, outer: int) -> None:
        order = (outer, 10 - outer)
        backends = {
            host.name: {"address": [address_of(host, version) for version in order]}
            for host in self.network.backends
        }
        l3: dict[str, Any] = {"forwarding": "l3", "tunnel": self.tunnel}
        services = {
            str(named): {
                "vip": named.vip,
                "protocol": "tcp",
                "ports": [named.port],
                "announce": named.place == "here",
                "health": {"type": _kind(named), **QUICK, **_longer(named)},
                "backends": backends,
                **(l3 if self.tunnel else {"forwarding": "l2"}),
            }
            for named in self.services
        }
        top: dict[str, Any] = {"maglev": {"slots": 251}}
        if self.tunnel:
            balancers = {f"lb{v}": address_of(self.network.lb, v) for v in FAMILIES}
            top["load_balancers"] = balancers
        write_config(self.path, services, **top)

    def _at_vips(self, host: Host) -> None:
        """Everything that can be wrong with one VIP or one port."""
        self.servers[host.name, 80].close()
        rules = [
            f"{'ip' if named.family == 4 else 'ip6'} daddr {named.vip} tcp dport {named.port} "
            + ("drop" if named.what == "dropped" else "reject")
            for named in self.services
            if named.what in ("dropped", "rejected")
        ]
        chain = "; ".join(["type filter hook input priority 0", *rules])
        host.run(["nft", f"table inet broken {{ chain in {{ {chain}; }}; }}"])
        host.remove_address("lo", *self._going())

    def _repair_vips(self, host: Host) -> None:
        self.servers[host.name, 80] = serve_tcp(host, [80])
        host.run(["nft", "delete", "table", "inet", "broken"])
        host.add_address("lo", *self._going())

    def _going(self) -> list[str]:
        return sorted({_host_route(n.vip) for n in self.services if n.port > 82})

    def _delete_tunnels(self, host: Host) -> None:
        with host.netlink() as netlink:
            for link in netlink.get_links():
                if str(link.get("ifname")).startswith("tula-"):
                    netlink.link("del", index=link["index"])

    def _see(self, when: str) -> None:
        """Waits for what should be; keeps what there is in the end. The tests tell what is not."""

        def reached() -> bool:
            time.sleep(0.5 if EMULATED else 0.05)  # to be asked all the time is work, too
            try:
                self.seen[when] = self.daemon.backends()
            except (NoDaemonError, DaemonError):  # too busy: where much else runs on this machine
                return False
            return not self.all_amiss(when)

        with suppress(LabError):
            wait_until(reached, PATIENCE, "the states")
        asked = self.answered[when] = {}
        for named in filter(_reachable, self.services):

            def answered(named: Named = named) -> bool:
                asked[named] = self._ask(named)
                return asked[named] == self.up(when, named)

            # What is shown may be a moment ahead of the kernel.
            with suppress(LabError):
                wait_until(answered, PATIENCE / 4, "the answers")

    def _ask(self, named: Named) -> set[str]:
        # Ports of their own: those that were asked from before are known flows.
        ports = range(self._ports, self._ports + 12)
        self._ports += 12
        answers = flows(self.network.client, named.vip, named.port, ports, allow_loss=True)
        return {*answers.values(), *(["nobody"] if len(answers) < len(ports) else [])}


def _reachable(named: Named) -> bool:
    """Whether clients' packets to it come to the balancer, and somebody says its name."""
    return named.place in ("here", "away") and named.what in AT_THE_VIP


def _kind(named: Named) -> str:
    return "icmp" if named.what == "echo" else "tcp"


def _longer(named: Named) -> dict[str, str]:
    # An ICMP error that comes while connect() still holds the socket, as it may between
    # namespaces of one machine, is not heard; that to the second SYN is, a second later.
    return {"timeout": "1500ms"} if named.what == "rejected" and not EMULATED else {}


def _host_route(vip: str) -> str:
    return f"{vip}/{128 if ':' in vip else 32}"
