"""Which packets are too large for the link to their backend. Pure.

With l2 a packet keeps its size, and nothing on its way tells the sender: nftables hands it to the
interface past the stack that would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.model.config import Config, Forwarding, IPAddress, PortRange
from tula.model.desired import NextHop
from tula.model.host import HostView

_Entry = tuple[tuple[PortRange, ...], int]


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The sizes in bytes, IP headers included, that links to backends take.

    ``arrivals``: the listed interfaces, by index, on which larger packets can arrive, each with the
    smallest limit and its own MTU.
    """

    arrivals: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    services: Mapping[tuple[IPAddress, int], tuple[_Entry, ...]] = field(default_factory=dict)
    """by VIP and number of the protocol"""

    def of(self, vip: IPAddress, protocol: int, port: int) -> int | None:
        """What a packet for this VIP and port may measure; None where nothing is too large."""
        rest: int | None = None
        for ports, mtu in self.services.get((vip, protocol), ()):
            if any(port in known for known in ports):
                return mtu
            if not ports:
                rest = mtu
        return rest


def plan_size_limits(
    config: Config, host: HostView, hops: Mapping[IPAddress, NextHop]
) -> SizeLimits:
    """Of each service the smallest MTU on the way to its backends; nothing where all packets that
    can arrive fit."""
    links = {name: host.links[name] for name in config.interfaces if name in host.links}
    largest = max((link.mtu for link in links.values()), default=0)
    services: dict[tuple[IPAddress, int], list[_Entry]] = {}
    limits: set[int] = set()
    for service in config.services:
        if Forwarding.L2 not in service.forwardings:
            continue
        for vip in service.vips:
            # Beside backends behind a tunnel, which has no limit: the kernel fragments there. What
            # goes to one of those is held to the limit too, since nobody knows which is chosen.
            towards = (
                hops[address]
                for backend in service.backends
                if service.forwarding_of(backend) is Forwarding.L2
                for address in backend.addresses
                if address.version == vip.version and address in hops
            )
            mtus = (host.links[hop.interface].mtu for hop in towards if hop.interface in host.links)
            mtu = min(mtus, default=largest)
            # Services that fit stand there too: a port that they name is none of "any port".
            limits |= {mtu} if mtu < largest else set()
            for protocol in service.protocols:
                services.setdefault((vip, protocol.number), []).append((service.ports, mtu))
    if not limits:
        return SizeLimits()
    smallest = min(limits)
    arrivals = {link.index: (smallest, link.mtu) for link in links.values() if link.mtu > smallest}
    return SizeLimits(arrivals, {key: tuple(found) for key, found in services.items()})
