"""What a machine's network does to a configuration that is right by itself. Pure.

Each has the id under which ``tula doctor`` reports it. What loses all of a service's traffic keeps
the configuration from being applied, unless that is forced; the rest is told, and applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

from tula.model.announce import ENGINES
from tula.model.config import Config, Forwarding, IPAddress, VirtualService
from tula.model.desired import NextHop, TunnelEndpoints
from tula.model.host import HostAddress, HostView, Link
from tula.model.problem import Path, Problem
from tula.plan.tunnels import outer_address

_NO_PACKETS = {"lo", "dummy"}
"""A name and a kind of interfaces by which no packet arrives from outside."""
_OWN_MAC = {"macvlan", "macvtap"}
"""Kinds that take packets for a MAC address of their own from the interface below."""


@dataclass(frozen=True, slots=True)
class Caution:
    """One of them: where in the configuration, what is seen, and the fix.

    ``severe``: nothing of the service works.
    """

    id: str
    interface: str
    path: Path
    evidence: str
    fix: str
    severe: bool = False
    commands: tuple[str, ...] = ()

    @property
    def problem(self) -> Problem:
        """For the user, beside problems of the configuration itself."""
        return Problem(self.path, f"{self.evidence}; {self.fix}")


def plan_cautions(
    config: Config,
    host: HostView,
    hops: Mapping[IPAddress, NextHop],
    endpoints: Mapping[IPAddress, TunnelEndpoints],
) -> list[Caution]:
    """All of them, in the configuration's order within each kind."""
    return [
        *_idle_interfaces(config, host),
        *_sources(config, host, hops, endpoints),
        *_no_link_local(config, host, hops),
        *_unlisted(config, host),
        *_larger_packets(config, host, hops),
    ]


def down_interface(address: IPAddress, host: HostView) -> str:
    """The interface that would lead to the address if it were up; empty if there is none such."""
    return next(
        (
            held.interface
            for held in host.addresses
            if held.native
            and address in held.address.network
            and held.interface in host.links
            and not host.links[held.interface].up
        ),
        "",
    )


def interfaces_down(host: HostView) -> list[str]:
    """All that are down. IPv6 addresses go when an interface does: which subnet it had is not known
    then."""
    return sorted(name for name, link in host.links.items() if not link.up and name != "lo")


def _idle_interfaces(config: Config, host: HostView) -> Iterator[Caution]:
    for position, name in enumerate(config.interfaces):
        link = host.links.get(name)
        if link is None or (link.up and link.carrier):
            continue
        path: Path = ("interfaces", position)
        if not link.up:
            yield Caution(
                "interface-down", name, path, f"{name} is down, so nothing arrives there",
                f"set it up: ip link set {name} up", commands=(f"ip link set {name} up",),
            )  # fmt: skip
            continue
        yield Caution(
            "interface-down", name, path,
            f"{name} has no carrier, so nothing arrives there, and nobody hears of the VIPs",
            "check the cable at both ends; when the carrier comes, the daemon announces the VIPs, "
            "and without a daemon tula apply does",
        )  # fmt: skip


def _sources(
    config: Config,
    host: HostView,
    hops: Mapping[IPAddress, NextHop],
    endpoints: Mapping[IPAddress, TunnelEndpoints],
) -> Iterator[Caution]:
    """A backend answers nothing that comes from an address of its own, ARP requests included
    (fib_validate_source, fib_frontend.c): this machine must not send to it from a VIP.

    IPv6 is not concerned: neighbour solicitations come from link-local addresses.
    """
    told: set[tuple[IPAddress, str]] = set()
    for service in config.services:
        vips = {vip for vip in service.vips if vip.version == 4}
        for backend in service.backends if vips else ():
            l3 = service.forwarding_of(backend) is Forwarding.L3
            address = outer_address(backend) if l3 else backend.address(4)
            if address is None:
                continue
            if l3:
                outer = endpoints.get(address)
                source, name = (outer.local, outer.interface) if outer else (None, "")
            else:
                route = host.routes.get(address)
                source = route.source if route and address in hops else None
                name = route.interface if route else ""
            if source not in vips or source is None or (source, name) in told:
                continue
            told.add((source, name))
            yield Caution(
                "vip-as-source", name, ("services", service.name, "vip"),
                f"{source} is the address from which this machine sends on {name}, ARP requests "
                f"included; backends hold the VIP too, and answer nothing that comes from it: no "
                "packet would reach them",
                f"take a VIP that is no address of this machine, or give {name} another address "
                f"of that subnet, in front of {source}",
                severe=True,
            )  # fmt: skip


def _no_link_local(
    config: Config, host: HostView, hops: Mapping[IPAddress, NextHop]
) -> Iterator[Caution]:
    """The kernel asks for the neighbours of forwarded packets from a link-local address, and not
    at all without one (ndisc_send_ns, ndisc.c)."""
    local = {held.interface for held in host.addresses if held.address.is_link_local}
    told: set[str] = set()
    for service in config.services:
        for backend in service.backends if 6 in service.versions else ():
            l2 = service.forwarding_of(backend) is Forwarding.L2
            address = backend.address(6) if l2 else None
            hop = hops.get(address) if address is not None else None
            link = host.links.get(hop.interface) if hop is not None else None
            if hop is None or link is None or link.name in told or not _resolves(link):
                continue
            if link.name in local:
                continue
            told.add(link.name)
            yield Caution(
                "no-link-local", link.name,
                ("services", service.name, "backends", backend.name, "address"),
                f"{link.name} has no IPv6 link-local address, and the kernel needs one to find the "
                f"MAC address of {hop.address}: no packet would reach it",
                "give it one (systemd-networkd: LinkLocalAddressing=ipv6)", severe=True,
                commands=(f"ip address add {_link_local(link)}/64 dev {link.name}",),
            )  # fmt: skip


def _link_local(link: Link) -> IPv6Address:
    """The address that the kernel would have made of the MAC address (RFC 4291, appendix A)."""
    mac = link.mac
    return IPv6Address(
        b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    )


def _resolves(link: Link) -> bool:
    """Without a carrier there is no link-local address yet, and none is needed without MACs."""
    return len(link.mac) == 6 and link.up and link.carrier


def _unlisted(config: Config, host: HostView) -> Iterator[Caution]:
    """Packets for a VIP that arrive by an interface that is not listed meet the machine's own
    stack."""
    found = [
        (likely, name, ("services", service.name, "vip"), why)
        for service in config.services
        for vip in service.vips
        for likely, name, why in _arrives(config, host, vip, _interface_of(service))
    ]
    told: set[str] = set()
    for _, name, path, why in sorted(found, key=lambda each: each[0]):
        if name not in told:
            told.add(name)
            yield Caution(
                "interface-not-listed", name, path,
                f"{why}, and {name} is not listed under interfaces: what arrives there is not "
                "forwarded, and this machine refuses it",
                f"list {name} under interfaces",
            )  # fmt: skip


def _interface_of(service: VirtualService) -> bool | str:
    """Where a VIP is put, by ``announce``: an engine does not say."""
    return True if service.announce in ENGINES else service.announce


def _arrives(
    config: Config, host: HostView, vip: IPAddress, announce: bool | str
) -> Iterator[tuple[bool, str, str]]:
    """The interfaces, not listed, by which packets for a VIP come, or only likely do, and why."""
    listed = {name: host.links[name] for name in config.interfaces if name in host.links}

    def missing(name: str) -> bool:
        link = host.links.get(name)
        if link is None or name in listed or name in _NO_PACKETS or link.kind in _NO_PACKETS:
            return False
        # What a bridge or bond receives has come by its ports.
        return not any(port.master == link.index for port in listed.values())

    if isinstance(announce, str):
        if missing(announce):
            yield False, announce, f"{vip} is announced on {announce}"
        return
    holders = [held for held in host.addresses if held.address.ip == vip and held.native]
    for held in holders:
        if missing(held.interface):
            yield False, held.interface, f"{held.interface} has the VIP {vip}"
    if holders or announce:
        return
    below = {link.index: name for name, link in listed.items()}
    for link in host.links.values():
        if link.kind in _OWN_MAC and link.lower in below and missing(link.name):
            where = below[link.lower]
            why = f"{vip} may come to the MAC address of {link.name}, above {where}"
            yield True, link.name, why
    if not any(_holds(held, vip) for held in host.addresses if held.interface in listed):
        for held in host.addresses:
            if _holds(held, vip) and missing(held.interface):
                yield False, held.interface, f"{vip} is of a subnet of {held.interface}"


def _holds(held: HostAddress, vip: IPAddress) -> bool:
    return held.native and vip in held.address.network


def _larger_packets(
    config: Config, host: HostView, hops: Mapping[IPAddress, NextHop]
) -> Iterator[Caution]:
    """A packet keeps its size with l2, whatever the link to the backend takes."""
    for position, name in enumerate(config.interfaces):
        link = host.links.get(name)
        small = sorted(
            {
                host.links[hop.interface].mtu: hop.interface
                for hop in hops.values()
                if link is not None
                and hop.interface in host.links
                and host.links[hop.interface].mtu < link.mtu
            }.items()
        )
        if link is None or not small:
            continue
        mtu, towards = small[0]
        yield Caution(
            "mtu-smaller", towards, ("interfaces", position),
            f"packets of up to {link.mtu} bytes arrive on {name}, and {towards}, which leads to "
            f"backends, takes {mtu}: larger ones are dropped; only a daemon tells their senders",
            f"set {towards} to an MTU of {link.mtu}, or {name} and its clients to {mtu}",
        )  # fmt: skip
