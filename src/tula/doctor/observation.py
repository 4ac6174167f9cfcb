"""What the machine itself shows, before any packet is sent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from tula.doctor.cluster import Cluster, observe_cluster
from tula.engine.forwarders import with_macs
from tula.engine.reader import Adapters, Reader
from tula.engine.store import Store
from tula.kernel.base_chains import read_base_chains
from tula.kernel.network import read_link_states
from tula.kernel.saved_rulesets import read_saved_tables
from tula.kernel.sysctls import Sysctls
from tula.model.chain import BaseChain
from tula.model.config import Config, IPAddress
from tula.model.health import ProbeSocket
from tula.model.host import HostView, LinkState
from tula.model.problem import Problem
from tula.model.stats import CLIENTS_FULL, Count, TableUse
from tula.plan.probe_sysctls import InterfaceRequirement, settings_to_read
from tula.plan.probes import Sources, plan_probes
from tula.plan.routes import Routes, backend_addresses, plan_routes

UNUSED_ADDRESSES: Mapping[int, IPAddress] = {
    4: IPv4Address("192.0.2.1"),
    6: IPv6Address("2001:db8:7475:6c61::1"),
}
"""Documentation addresses (RFC 5737, RFC 3849): a backend's reply to one of them shows where its
default route leads."""

RUN_DIR = Path("/run/tula")
_STATISTICS = {4: "arp_cache", 6: "ndisc_cache"}
_FAMILIES = {4: "ipv4", 6: "ipv6"}

DaemonStatus = Callable[[], Mapping[str, Any] | None]
"""What the daemon tells; None without one."""

PendingChanges = Callable[[], Sequence[str] | None]
"""What apply would change now, a line each; None when the configuration does not fit the
machine."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a kernel table is, in entries; from ``soft_limit`` on, old entries are evicted."""

    used: int
    limit: int
    soft_limit: int = 0


@dataclass(frozen=True)
class Observation:
    """One machine and one configuration, without anything that other machines say.

    ``options`` names the configuration on a command line, such as ``-f tula.yaml``. ``applied``:
    it is the one that was applied last. ``pending`` is what apply would change, None when the
    configuration does not fit the machine.
    """

    config: Config
    host: HostView = field(default_factory=HostView)
    routes: Routes = field(default_factory=Routes)
    links: Mapping[str, LinkState] = field(default_factory=dict)
    options: str = ""
    has_table: bool = True
    applied: bool = True
    has_daemon: bool = False
    pending: Sequence[str] | None = ()
    unsupported: Sequence[Problem] = ()
    """Tunnels that this kernel cannot make."""
    nft: tuple[int, ...] | None = (1, 0, 6)
    """The version of the nft program, None without one."""
    saved_tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Tula's tables in files that nftables.service loads, by file."""
    flow_tables: Sequence[TableUse] = ()
    table_full: int = 0
    """Packets that found a flow table full."""
    clients_full: int = 0
    """Packets of new clients that found a table of persistent clients full."""
    neighbours: Mapping[int, Usage] = field(default_factory=dict)
    """By IP version."""
    conntrack: Usage | None = None
    chains: Sequence[BaseChain] = ()
    probe_needs: Mapping[str, InterfaceRequirement] = field(default_factory=dict)
    """What health checks need, by interface."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    """None on a machine that is not one of several balancers."""
    receivers: Sequence[Mapping[str, Any]] = ()
    """Who is told of changes, as the daemon's status has them."""

    @cached_property
    def sources(self) -> Sources:
        """The addresses to send from."""
        return Sources(self.config, self.host)

    @cached_property
    def vips(self) -> set[IPAddress]:
        """All VIPs of the configuration."""
        return {vip for service in self.config.services for vip in service.vips}

    @cached_property
    def addresses(self) -> set[IPAddress]:
        """This machine's addresses, including VIPs that it holds."""
        return {held.address.ip for held in self.host.addresses}

    @cached_property
    def interfaces(self) -> tuple[str, ...]:
        """The interfaces in use that exist: towards clients, backends and VIPs."""
        named = [
            *self.config.interfaces,
            *(hop.interface for hop in self.routes.hops.values()),
            *(outer.interface for outer in self.routes.endpoints.values()),
            *(owned.interface for owned in self.routes.held),
            *([self.cluster.interface] if self.cluster is not None else []),
        ]
        return tuple(name for name in dict.fromkeys(named) if name in self.host.links)

    @cached_property
    def names(self) -> dict[IPAddress, str]:
        """The backends' and load balancers' names by address."""
        found: dict[IPAddress, str] = {a: name for name, a in self.config.load_balancers}
        for service in self.config.services:
            for backend in service.backends:
                found |= dict.fromkeys(backend.addresses, backend.name)
        return found


def observe_machine(
    config: Config,
    source: bytes,
    options: str,
    kernel: Adapters,
    store: Store,
    pending: PendingChanges,
    status: DaemonStatus = lambda: None,
    run_dir: Path = RUN_DIR,
) -> Observation:
    """Reads the machine; changes nothing. Raises KernelError and StateError.

    ``run_dir`` has the files of the engines that announce VIPs.
    """
    host = with_macs(config, kernel.network.view(_destinations(config)), kernel.network)
    routes = plan_routes(config, host, force=True)
    stats = Reader(kernel, store).stats()
    full = [count.packets for name, count in stats.counters.items() if name == "table_full"]
    return Observation(
        config=config,
        host=host,
        routes=routes,
        links=read_link_states(),
        options=options,
        has_table=kernel.path.observe_presence().present,
        applied=store.configuration() == source,
        has_daemon=store.has_daemon(),
        pending=pending(),
        unsupported=kernel.path.unsupported(config),
        nft=read_nft_version(),
        saved_tables=read_saved_tables(),
        flow_tables=stats.tables,
        table_full=sum(full),
        clients_full=stats.counters.get(CLIENTS_FULL, Count()).packets,
        neighbours=read_neighbours(kernel.sysctls),
        conntrack=read_conntrack(kernel.sysctls),
        chains=read_base_chains(),
        probe_needs=_probe_needs(config, host, routes),
        sysctls=_read_sysctls(host, kernel.sysctls),
        cluster=observe_cluster(config, host, status, run_dir),
        receivers=_receivers(status()) if config.notify.receivers else (),
    )


def _receivers(status: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    return tuple((status or {}).get("notify") or ())


def _destinations(config: Config) -> set[IPAddress]:
    """The addresses whose routes are looked up."""
    vips = {vip for service in config.services for vip in service.vips}
    balancers = {address for _, address in config.load_balancers}
    bgp = config.high_availability.bgp
    routers = {router for router, _ in bgp.routers} if bgp is not None else set()
    return backend_addresses(config) | balancers | routers | vips | set(UNUSED_ADDRESSES.values())


def _probe_needs(
    config: Config, host: HostView, routes: Routes
) -> Mapping[str, InterfaceRequirement]:
    """What replies to health checks need of interfaces."""
    if routes.problems or not any(service.probed for service in config.services):
        return {}
    return plan_probes(config, host, routes, lambda *_: ProbeSocket(0, 0)).needs or {}


def _read_sysctls(host: HostView, sysctls: Sysctls) -> Mapping[str, str]:
    values = {name: sysctls.read(name) for name in settings_to_read(host.links)}
    return {name: value for name, value in values.items() if value is not None}


def read_neighbours(sysctls: Sysctls) -> dict[int, Usage]:
    """The neighbour tables by IP version. They belong to the whole machine, and are not visible
    in network namespaces other than the initial one (neighbour.c)."""
    found: dict[int, Usage] = {}
    for version, family in _FAMILIES.items():
        base = f"net/{family}/neigh/default/gc_thresh"
        soft, limit = (_number(sysctls.read(f"{base}{n}")) for n in (2, 3))
        used = _entries(Path("/proc/net/stat") / _STATISTICS[version])
        if limit and used is not None:
            found[version] = Usage(used, limit, soft)
    return found


def read_conntrack(sysctls: Sysctls) -> Usage | None:
    """The connection tracking table, None where the kernel has none."""
    count, limit = (sysctls.read(f"net/netfilter/nf_conntrack_{n}") for n in ("count", "max"))
    return Usage(_number(count), _number(limit)) if count and limit else None


def read_nft_version() -> tuple[int, ...] | None:
    """The version of the nft program, which writes the rules; None without one."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    program = shutil.which("nft", path=path)
    if program is None:
        return None
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return parse_version(output.stdout)


def parse_version(text: str) -> tuple[int, ...] | None:
    """From ``nftables v1.0.6 (Lester Gooch #5)``."""
    found = re.search(r"v(\d+(?:\.\d+)*)", text)
    return tuple(map(int, found[1].split("."))) if found else None


def _entries(path: Path) -> int | None:
    """The first column of the first row: the table's entries, hexadecimal."""
    try:
        return int(path.read_text().splitlines()[1].split()[0], 16)
    except (OSError, IndexError, ValueError):
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
