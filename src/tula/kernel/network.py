"""The machine's links, addresses and routes, by rtnetlink; and the VIPs that Tula puts there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tula.kernel.nftables import KernelError
from tula.kernel.ssh import ssh_ports
from tula.kernel.tunnels import read_tunnels
from tula.model.config import IPAddress
from tula.model.desired import OwnedAddress
from tula.model.host import HostAddress, HostView, Link, Route

OWNER = 0x54
"""What stands in an address's protocol field (IFA_PROTO, Linux 5.18) when Tula made it: it tells
Tula's addresses from others without any file. ``ip address`` of iproute2 6.3 and later shows it
as ``proto 0x54``."""

_LINK_SCOPE_HOST = 254
_FOREVER = 0xFFFFFFFF
_FLAG_NODAD = 0x02
_FLAG_NOPREFIXROUTE = 0x200
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENODEV}
_KINDS = {1: "unicast", 2: "local"}


class Network(Protocol):
    """Links, addresses and routes of one network namespace; the fake keeps them as values."""

    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        """One reading, with the routes to the destinations. Raises KernelError."""

    def add_address(self, owned: OwnedAddress) -> None:
        """Puts a VIP on its interface; does nothing if it is there. Raises KernelError."""

    def remove_address(self, owned: OwnedAddress) -> None:
        """Takes back a VIP that Tula put there; does nothing if it is gone. Raises KernelError."""


class KernelNetwork:
    """The network namespace that the calling thread is in."""

    def view(self, destinations: Iterable[IPAddress]) -> HostView:
        try:
            with IPRoute() as netlink:
                dumped = tuple(netlink.get_links())
                links = {link.name: link for link in map(_link, dumped)}
                names = {link.index: link.name for link in links.values()}
                return HostView(
                    links=links,
                    addresses=tuple(_address(entry, names) for entry in netlink.get_addr()),
                    routes={to: _route(netlink, to, names) for to in destinations},
                    ssh_ports=ssh_ports(),
                    tunnels=read_tunnels(netlink, dumped),
                )
        except (NetlinkError, OSError) as error:
            raise KernelError(f"cannot read this machine's network: {_reason(error)}") from error

    def add_address(self, owned: OwnedAddress) -> None:
        self._change("add", owned, {errno.EEXIST})

    def remove_address(self, owned: OwnedAddress) -> None:
        self._change("del", owned, {errno.EADDRNOTAVAIL, errno.ENODEV})

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
    """What marks a VIP as Tula's and keeps the machine's own traffic from using it.

    IPv4: scope host is passed over by source selection (inet_select_addr, devinet.c), and ARP
    still answers for it. IPv6: a deprecated address comes last (RFC 6724, rule 3); no duplicate
    address detection, since another balancer may hold the VIP as well.
    """
    if vip.version == 4:
        return {"proto": OWNER, "scope": _LINK_SCOPE_HOST}
    flags = _FLAG_NODAD | _FLAG_NOPREFIXROUTE
    return {"proto": OWNER, "flags": flags, "preferred_lft": 0, "valid_lft": _FOREVER}


def _reason(error: Exception) -> str:
    code = getattr(error, "code", None) or getattr(error, "errno", None)
    return os.strerror(code) if isinstance(code, int) else str(error)


def _link(entry: Any) -> Link:
    mac = entry.get_attr("IFLA_ADDRESS") or ""
    return Link(
        name=entry.get_attr("IFLA_IFNAME"),
        index=entry["index"],
        mac=bytes.fromhex(mac.replace(":", "")) if mac.count(":") == 5 else b"",
        mtu=entry.get_attr("IFLA_MTU"),
    )


def _address(entry: Any, names: dict[int, str]) -> HostAddress:
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is ours.
    text = entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")
    return HostAddress(
        interface=names.get(entry["index"], ""),
        address=ip_interface(f"{text}/{entry['prefixlen']}"),
        ours=entry.get_attr("IFA_PROTO") == OWNER,
    )


def _route(netlink: Any, to: IPAddress, names: dict[int, str]) -> Route:
    family = 2 if to.version == 4 else 10
    try:
        entry = next(iter(netlink.route("get", dst=str(to), family=family)))
    except NetlinkError as error:
        if error.code in _UNREACHABLE:
            return Route("none")
        raise
    gateway = entry.get_attr("RTA_GATEWAY")
    via = entry.get_attr("RTA_VIA")
    if gateway is None and via is not None:
        gateway = via["addr"]
    source = entry.get_attr("RTA_PREFSRC")
    return Route(
        kind=_KINDS.get(entry["type"], "none"),
        interface=names.get(entry.get_attr("RTA_OIF"), ""),
        gateway=ip_address(gateway) if gateway is not None else None,
        source=ip_address(source) if source is not None else None,
    )
