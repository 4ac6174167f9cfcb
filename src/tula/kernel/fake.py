"""Stateful fakes of what is around Tula's table, for tests: they refuse what the kernel refuses.

The table itself is in ``fake_nftables``; ``failures`` makes any call of any of them fail.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface

from tula.dataplane.nft.tunnel_devices import Tunnels, VxlanNeighbour, VxlanPeer
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.kernel.events import Events
from tula.kernel.failures import Failures, fallible
from tula.kernel.vip_routes import VipRoute, VipTable
from tula.model.command import Command, command
from tula.model.config import IPAddress
from tula.model.errors import KernelError
from tula.model.host import HostAddress, HostView, Link, OwnedAddress, Route


@dataclass
class FakeNetwork:
    """Links, addresses and routes as values; ``refuse`` makes an interface take no address."""

    host: HostView
    refuse: set[str] = field(default_factory=set)
    resolved: set[tuple[int, IPAddress]] = field(default_factory=set)
    admitted: set[tuple[str, bytes]] = field(default_factory=set)
    failures: Failures = field(default_factory=Failures)

    @fallible("network.view")
    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        routes = {to: self.host.routes.get(to, Route("none")) for to in destinations}
        return replace(self.host, routes=routes)

    @fallible("network.ssh_ports")
    def ssh_ports(self) -> frozenset[int]:
        return self.host.ssh_ports

    @fallible("network.add_address")
    def add_address(self, owned: OwnedAddress) -> None:
        if owned.interface not in self.host.links:
            raise KernelError(f"cannot add {owned.address} on {owned.interface}: No such device")
        if owned.interface in self.refuse:
            raise KernelError(f"cannot add {owned.address} on {owned.interface}: Permission denied")
        added = HostAddress(owned.interface, ip_interface(owned.address), ours=True)
        if added not in self.host.addresses:
            self.host = replace(self.host, addresses=(*self.host.addresses, added))

    @fallible("network.resolve")
    def resolve(self, neighbours: Iterable[tuple[int, IPAddress]]) -> None:
        self.resolved.update(neighbours)

    @fallible("network.macs")
    def macs(self, neighbours: Collection[IPAddress]) -> Mapping[IPAddress, bytes]:
        known = self.host.macs
        return {address: known[address] for address in neighbours if address in known}

    @fallible("network.admit")
    def admit(self, interface: str, mac: bytes, *, on: bool) -> None:
        (self.admitted.add if on else self.admitted.discard)((interface, mac))

    @fallible("network.remove_address")
    def remove_address(self, owned: OwnedAddress) -> None:
        gone = HostAddress(owned.interface, ip_interface(owned.address), ours=True)
        kept = tuple(held for held in self.host.addresses if held != gone)
        self.host = replace(self.host, addresses=kept)


@dataclass
class FakeVipRoutes:
    """The table of VIPs' routes, as a value."""

    table: VipTable = field(default_factory=VipTable)
    failures: Failures = field(default_factory=Failures)

    @fallible("vip_routes.read")
    def read(self) -> VipTable:
        return self.table

    @fallible("vip_routes.change")
    def change(self, add: Iterable[VipRoute], remove: Iterable[VipRoute]) -> list[str]:
        routes = (self.table.routes | set(add)) - set(remove)
        self.table = replace(self.table, routes=routes)
        return []


@dataclass
class FakeTunnels:
    """Tunnels as values, and as links of a ``FakeNetwork``; ``refuse`` names kinds it has not."""

    network: FakeNetwork
    refuse: set[str] = field(default_factory=set)
    tunnels: Tunnels = field(default_factory=Tunnels)
    failures: Failures = field(default_factory=Failures)

    @fallible("tunnels.missing")
    def missing(self, kinds: Iterable[str]) -> set[str]:
        return self.refuse & set(kinds)

    @fallible("tunnels.observe")
    def observe(self) -> Tunnels:
        return self.tunnels

    @fallible("tunnels.prepare")
    def prepare(self, change: TunnelChange, have: Tunnels) -> None:  # noqa: ARG002
        for device in change.add:
            if device.kind in self.refuse:
                raise KernelError(f"this kernel has no {device.kind} devices")
            if device.name in self.network.host.links and device.name not in change.first:
                raise KernelError(f"cannot make {device.name}: File exists")
        self._set(change.first, (), ())
        now = self.tunnels
        devices = {**now.devices, **{device.name: device for device in change.add}}
        peers, neighbours = now.peers | set(change.add_peers), set(change.add_neighbours)
        replaced = {(n.device, n.hop) for n in neighbours}
        kept = {n for n in now.neighbours if (n.device, n.hop) not in replaced}
        self._become(Tunnels(devices, peers, frozenset(kept | neighbours)))

    def undo(self, change: TunnelChange, have: Tunnels) -> None:  # noqa: ARG002
        self._become(have)

    @fallible("tunnels.finish")
    def finish(self, change: TunnelChange) -> None:
        self._set(change.remove, change.remove_peers, change.remove_neighbours)

    def _set(
        self,
        names: Iterable[str],
        peers: Iterable[VxlanPeer],
        neighbours: Iterable[VxlanNeighbour],
    ) -> None:
        now, gone = self.tunnels, set(names)
        self._become(
            Tunnels(
                {name: device for name, device in now.devices.items() if name not in gone},
                frozenset(p for p in now.peers - set(peers) if p.device not in gone),
                frozenset(n for n in now.neighbours - set(neighbours) if n.device not in gone),
            )
        )

    def _become(self, tunnels: Tunnels) -> None:
        host = self.network.host
        links = {n: link for n, link in host.links.items() if n not in self.tunnels.devices}
        devices = {n: Link(n, d.index) for n, d in tunnels.devices.items() if d is not None}
        self.tunnels = tunnels
        self.network.host = replace(host, links=links | devices)


@dataclass
class FakeAnnouncer:
    """Remembers what was announced, and on which interface."""

    announced: list[OwnedAddress] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)

    @fallible("announcer.announce")
    def announce(self, vip: IPAddress, link: Link) -> None:
        self.announced.append(OwnedAddress(vip, link.name))


@dataclass
class FakeSysctls:
    """Settings as values; those in ``refuse`` cannot be written. ``writes`` are in their order."""

    values: dict[str, str] = field(default_factory=dict)
    refuse: set[str] = field(default_factory=set)
    writes: list[tuple[str, str]] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)

    @fallible("sysctls.read")
    def read(self, name: str) -> str | None:
        return self.values.get(name)

    @fallible("sysctls.write")
    def write(self, name: str, value: str) -> None:
        reason = "Read-only file system" if name in self.refuse else "No such file or directory"
        if name in self.refuse or name not in self.values:
            raise KernelError(f"cannot set sysctl {name} to {value}: {reason}")
        self.writes.append((name, value))
        self.values[name] = value


@dataclass
class FakeProbeRoute:
    """The IP versions that have a rule and a route; with ``refuse`` nothing can be changed."""

    versions: set[int] = field(default_factory=set)
    refuse: str = ""
    failures: Failures = field(default_factory=Failures)

    def removal(self) -> list[Command]:
        return [command(f"ip -{version} rule flush protocol 84") for version in self.versions]

    @fallible("probe_route.ensure")
    def ensure(self, versions: Iterable[int]) -> bool:
        return self._bring(set(versions))

    @fallible("probe_route.remove")
    def remove(self) -> bool:
        return self._bring(set())

    def _bring(self, wanted: set[int]) -> bool:
        if wanted == self.versions:
            return False
        if self.refuse:
            raise KernelError(self.refuse)
        self.versions = wanted
        return True


class FakeEvents:
    """Events that a test lets happen; the file descriptor becomes readable as the kernel's do."""

    def __init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        self._waiting: list[Events] = []
        self.neighbours: frozenset[IPAddress] = frozenset()

    def __del__(self) -> None:
        os.close(self._bell)

    def happen(self, *, network: bool = False, generation: int = 0, lost: bool = False) -> None:
        """One event, which the next ``drain`` tells with the others."""
        self._waiting.append(Events(network, (generation,) if generation else (), lost))
        os.eventfd_write(self._bell, 1)

    def filenos(self) -> tuple[int, ...]:
        return (self._bell,)

    def muted(self) -> AbstractContextManager[None]:
        return nullcontext()

    def watch_neighbours(self, addresses: Collection[IPAddress]) -> None:
        self.neighbours = frozenset(addresses)

    def drain(self) -> Events:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        waiting, self._waiting = self._waiting, []
        return Events(
            network=any(events.network for events in waiting),
            generations=tuple(g for events in waiting for g in events.generations),
            lost=any(events.lost for events in waiting),
        )
