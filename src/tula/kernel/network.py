"""The machine's links, addresses and routes, by rtnetlink; and the VIPs that Tula puts there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tula.kernel.listeners import ssh_ports
from tula.kernel.rtnetlink import AddressEntry, LinkEntry, RtReader
from tula.model.config import IPAddress
from tula.model.errors import KernelError
from tula.model.host import HostAddress, HostView, Link, LinkState, OwnedAddress, Route

OWNER = 0x54
"""The protocol field (IFA_PROTO, Linux 5.18) of addresses that Tula added: it tells them from
others without any file. ``ip address`` of iproute2 6.3 and later shows it
as ``proto 0x54``."""

Neighbour = tuple[int, IPAddress]
"""The index of an interface, and an address on its link."""

_USE = 0x01
_SELF, _PERMANENT = 0x02, 0x80
"""NTF_SELF, NUD_PERMANENT."""
_LINK_SCOPE_HOST = 254
_FOREVER = 0xFFFFFFFF
_FLAG_NODAD = 0x02
_FLAG_NOPREFIXROUTE = 0x200
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENODEV}
_KINDS = {1: "unicast", 2: "local"}
_UP, _LOWER_UP = 0x1, 0x10000
"""IFF_*."""
_ETHERNET = {1, 772}
"""ARPHRD_ETHER, ARPHRD_LOOPBACK."""
_INGRESS = {"ingress", "clsact"}
"""The qdiscs that tc's ingress programs are attached to (sch_ingress.c)."""


class Network(Protocol):
    """Links, addresses and routes of one network namespace; the fake keeps them as values."""

    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        """One reading, with the routes to the destinations. Raises KernelError."""

    def ssh_ports(self) -> frozenset[int]:
        """The ports on which this machine's SSH may listen. Walks over all processes."""

    def add_address(self, owned: OwnedAddress) -> None:
        """Adds a VIP to its interface; does nothing if it is there. Raises KernelError."""

    def remove_address(self, owned: OwnedAddress) -> None:
        """Removes a VIP that Tula added; does nothing if it is gone. Raises KernelError."""

    def admit(self, interface: str, mac: bytes, *, on: bool) -> None:
        """Has the interface's card take frames for this MAC address, too, or no longer. Does
        nothing where that is so, or the interface is gone. Raises KernelError."""

    def resolve(self, neighbours: Iterable[Neighbour]) -> None:
        """Has the kernel resolve the MACs that it does not know. Raises KernelError."""

    def macs(self, neighbours: Collection[IPAddress]) -> Mapping[IPAddress, bytes]:
        """Their MAC addresses, as far as the kernel knows them. Raises KernelError."""


class KernelNetwork:
    """The network namespace that the calling thread is in."""

    def __init__(self, engines: Callable[[], Collection[OwnedAddress]] = tuple) -> None:
        """``engines`` tells which addresses engines may have put here, by files of Tula's."""
        self._engines = engines

    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        theirs = self._engines()
        try:
            with RtReader() as reader:
                dumped = reader.links()
                links = {link.name: link for link in map(_link, dumped)}
                names = {link.index: link.name for link in links.values()}
                return HostView(
                    links=links,
                    addresses=tuple(_address(entry, names, theirs) for entry in reader.addresses()),
                    routes={to: _route(reader, to, names) for to in destinations},
                )
        except (NetlinkError, OSError) as error:
            raise KernelError(f"cannot read this machine's network: {_reason(error)}") from error

    def ssh_ports(self) -> frozenset[int]:
        return ssh_ports()

    def add_address(self, owned: OwnedAddress) -> None:
        self._change("add", owned, {errno.EEXIST})

    def remove_address(self, owned: OwnedAddress) -> None:
        self._change("del", owned, {errno.EADDRNOTAVAIL, errno.ENODEV})

    def admit(self, interface: str, mac: bytes, *, on: bool) -> None:
        try:
            with IPRoute() as netlink:
                for index in netlink.link_lookup(ifname=interface):
                    # dev_uc_add_excl (net/core/rtnetlink.c, ndo_dflt_fdb_add).
                    netlink.fdb(
                        "add" if on else "del",
                        ifindex=index,
                        lladdr=mac.hex(":"),
                        flags=_SELF,
                        state=_PERMANENT,
                    )
        except (NetlinkError, OSError) as error:
            code = getattr(error, "code", None)
            if code != (errno.EEXIST if on else errno.ENOENT):
                raise KernelError(
                    f"{interface} does not take frames for {mac.hex(':')}: {_reason(error)}"
                ) from error

    def resolve(self, neighbours: Iterable[Neighbour]) -> None:
        try:
            with IPRoute() as netlink:
                for index, address in neighbours:
                    # NTF_USE: as if a packet were sent to it (neigh_add, neighbour.c).
                    netlink.neigh("replace", ifindex=index, dst=str(address), state=0, flags=_USE)
        except (NetlinkError, OSError) as error:
            raise KernelError(f"cannot ask for neighbours: {_reason(error)}") from error

    def macs(self, neighbours: Collection[IPAddress]) -> Mapping[IPAddress, bytes]:
        try:
            with RtReader() as reader:
                return reader.neighbours(neighbours)
        except OSError as error:
            raise KernelError(f"cannot read this machine's neighbours: {_reason(error)}") from error

    def _change(self, verb: str, owned: OwnedAddress, done: set[int]) -> None:
        vip = owned.address
        arguments: dict[str, Any] = {"address": str(vip), "prefixlen": vip.max_prefixlen}
        if verb == "add":
            arguments |= _never_a_source(vip)
        try:
            with IPRoute() as netlink:
                index = netlink.link_lookup(ifname=owned.interface)
                if not index:
                    raise NetlinkError(errno.ENODEV, os.strerror(errno.ENODEV))
                netlink.addr(verb, index=index[0], **arguments)
        except NetlinkError as error:
            if error.code in done:
                return
            reason = _reason(error)
            if error.code == errno.EACCES:  # without the capability it would be EPERM
                reason = f"IPv6 is off there (sysctl net.ipv6.conf.{owned.interface}.disable_ipv6)"
            raise KernelError(f"cannot {verb} {vip} on {owned.interface}: {reason}") from error
        except OSError as error:
            raise KernelError(
                f"cannot {verb} {vip} on {owned.interface}: {_reason(error)}"
            ) from error


def _never_a_source(vip: IPAddress) -> dict[str, Any]:
    """The attributes that mark a VIP as Tula's and keep the machine's own traffic from using it.

    IPv4: source selection skips scope host (inet_select_addr, devinet.c), and ARP still answers
    for it. IPv6: a deprecated address comes last (RFC 6724, rule 3); no duplicate
    address detection, since another balancer may hold the VIP as well.
    """
    if vip.version == 4:
        return {"proto": OWNER, "scope": _LINK_SCOPE_HOST}
    flags = _FLAG_NODAD | _FLAG_NOPREFIXROUTE
    return {"proto": OWNER, "flags": flags, "preferred_lft": 0, "valid_lft": _FOREVER}


def _reason(error: Exception) -> str:
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    return os.strerror(code) if isinstance(code, int) else str(error)


def _link(entry: LinkEntry) -> Link:
    mac, flags = entry.mac, entry.flags
    return Link(
        *(entry.name, entry.index, mac if len(mac) == 6 else b"", entry.mtu),
        up=bool(flags & _UP),
        carrier=bool(flags & _LOWER_UP),
        carriers=entry.carriers,
        kind=entry.kind,
        lower=entry.lower,
        master=entry.master,
        ethernet=entry.type in _ETHERNET,
    )


def _address(
    entry: AddressEntry, names: dict[int, str], engines: Collection[OwnedAddress]
) -> HostAddress:
    interface, address = names.get(entry.index, ""), ip_interface(f"{entry.text}/{entry.length}")
    ours = entry.owner == OWNER
    return HostAddress(
        interface,
        address,
        ours=ours,
        engine=not ours and OwnedAddress(address.ip, interface) in engines,
    )


def _route(reader: RtReader, to: IPAddress, names: dict[int, str]) -> Route:
    try:
        entry = reader.route(to)
    except OSError as error:
        if error.errno in _UNREACHABLE:
            return Route("none")
        raise
    return Route(
        kind=_KINDS.get(entry.kind, "none"),
        interface=names.get(entry.index, ""),
        gateway=ip_address(entry.gateway) if entry.gateway else None,
        source=ip_address(entry.source) if entry.source else None,
    )


def read_link_states() -> dict[str, LinkState]:
    """The state of each interface, and which programs see its packets before nftables does.

    Raises KernelError.
    """
    try:
        with RtReader() as reader:
            links = reader.links()
            hooked = {index for index, kind in reader.qdiscs() if kind in _INGRESS}
    except OSError as error:
        raise KernelError(f"cannot read this machine's interfaces: {_reason(error)}") from error
    found: dict[str, LinkState] = {}
    for link in links:
        programs = ["an XDP program"] if link.xdp else []
        programs += ["a tc ingress hook"] if link.index in hooked else []
        up, carrier = bool(link.flags & _UP), bool(link.flags & _LOWER_UP)
        found[link.name] = LinkState(up, carrier, tuple(programs))
    return found
