"""What the machine itself tells, before any packet is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from tula.doctor.machine import Usage, nft_version, read_conntrack, read_neighbours
from tula.engine.reader import Adapters, Reader, TableUse
from tula.engine.store import Store
from tula.kernel.link_states import read_link_states
from tula.kernel.nfchains import read_base_chains
from tula.kernel.sysctls import Sysctls
from tula.model.chain import BaseChain
from tula.model.config import Config, IPAddress
from tula.model.host import HostView, LinkState
from tula.model.problem import Problem
from tula.plan.ids import plan_ids
from tula.plan.probe_sysctls import InterfaceRequirement, settings_to_read
from tula.plan.probes import Sources, plan_probes
from tula.plan.reach import Reach, backend_addresses, plan_reach
from tula.plan.tunnel_kinds import missing_tunnels

STRAYS: Mapping[int, IPAddress] = {
    4: IPv4Address("192.0.2.1"),
    6: IPv6Address("2001:db8:7475:6c61::1"),
}
"""Addresses of nobody (RFC 5737, RFC 3849): a backend's answer to one shows where its default
route leads."""

Difference = Callable[[], Sequence[str] | None]
"""What apply would change now, a line each; None where the document does not fit the machine."""


@dataclass(frozen=True)
class Scene:
    """One machine and one document, without a word from others.

    ``text`` is the name of the document in commands, such as ``-f tula.yaml``. ``difference`` is
    None where the document does not fit the machine; ``same`` says that it is the applied one.
    """

    config: Config
    host: HostView = field(default_factory=HostView)
    reach: Reach = field(default_factory=Reach)
    links: Mapping[str, LinkState] = field(default_factory=dict)
    text: str = ""
    table: bool = True
    same: bool = True
    daemon: bool = False
    difference: Sequence[str] | None = ()
    lacking: Sequence[Problem] = ()
    nft: tuple[int, ...] | None = (1, 0, 6)
    tables: Sequence[TableUse] = ()
    full: int = 0
    neighbours: Mapping[int, Usage] = field(default_factory=dict)
    conntrack: Usage | None = None
    chains: Sequence[BaseChain] = ()
    needs: Mapping[str, InterfaceRequirement] = field(default_factory=dict)
    """What health checks need of interfaces."""
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def sources(self) -> Sources:
        """The addresses to send from."""
        return Sources(self.config, self.host)

    @cached_property
    def vips(self) -> set[IPAddress]:
        """All of the document's."""
        return {vip for service in self.config.services for vip in service.vips}

    @cached_property
    def own(self) -> set[IPAddress]:
        """This machine's addresses, VIPs that it holds among them."""
        return {held.address.ip for held in self.host.addresses}

    @cached_property
    def interfaces(self) -> tuple[str, ...]:
        """Those in use that are here: where clients come in, and where backends and VIPs are."""
        named = [
            *self.config.interfaces,
            *(hop.interface for hop in self.reach.hops.values()),
            *(outer.interface for outer in self.reach.outers.values()),
            *(owned.interface for owned in self.reach.addresses),
        ]
        return tuple(name for name in dict.fromkeys(named) if name in self.host.links)

    @cached_property
    def names(self) -> dict[IPAddress, str]:
        """Whose addresses are known: backends' and balancers' names."""
        found: dict[IPAddress, str] = {a: name for name, a in self.config.load_balancers}
        for service in self.config.services:
            for backend in service.backends:
                found |= dict.fromkeys(backend.addresses, backend.name)
        return found


def destinations(config: Config) -> set[IPAddress]:
    """The addresses whose routes a Scene needs."""
    vips = {vip for service in config.services for vip in service.vips}
    balancers = {address for _, address in config.load_balancers}
    return backend_addresses(config) | balancers | vips | set(STRAYS.values())


def observe_scene(
    config: Config,
    source: bytes,
    text: str,
    kernel: Adapters,
    store: Store,
    difference: Difference,
) -> Scene:
    """Reads the machine; changes nothing. Raises KernelError and StateError."""
    host = kernel.network.view(destinations(config))
    reach = plan_reach(config, host, force=True)
    lacking = missing_tunnels(config, kernel.tunnels.missing)
    reader = Reader(kernel, store)
    full = [count.packets for name, count in reader.named_counts().items() if name == "table_full"]
    return Scene(
        config=config,
        host=host,
        reach=reach,
        links=read_link_states(),
        text=text,
        table=kernel.nftables.exists(),
        same=store.document() == source,
        daemon=store.has_daemon(),
        difference=difference(),
        lacking=lacking,
        nft=nft_version(),
        tables=reader.flow_tables(),
        full=sum(full),
        neighbours=read_neighbours(kernel.sysctls),
        conntrack=read_conntrack(kernel.sysctls),
        chains=read_base_chains(),
        needs=_needs(config, host, reach, store),
        settings=_settings(host, kernel.sysctls),
    )


def _needs(
    config: Config, host: HostView, reach: Reach, store: Store
) -> Mapping[str, InterfaceRequirement]:
    """What answers to health checks need; the numbers do not matter."""
    if reach.problems or not any(service.probed for service in config.services):
        return {}
    ids = plan_ids(config, store.memory().ids, time.time())
    return plan_probes(config, host, reach, ids).needs or {}


def _settings(host: HostView, sysctls: Sysctls) -> Mapping[str, str]:
    values = {name: sysctls.read(name) for name in settings_to_read(host.links)}
    return {name: value for name, value in values.items() if value is not None}
