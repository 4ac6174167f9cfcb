"""Routes that say which VIPs this machine serves, in a table of their own: a BGP speaker announces
what stands there. No packet is routed by it, since no policy rule names the table.

Numbers are from include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol

from tula.kernel.netlink import CREATE, EXCLUSIVE, ROUTE, NetlinkSocket, attribute
from tula.kernel.rtnetlink import RtReader
from tula.model.config import IPAddress
from tula.model.errors import KernelError

TABLE = 84
"""The table's number, and the protocol (rtm_protocol) of Tula's routes in it: it tells them from
others' without any file."""
_BLACKHOLE = 6
_NEW_ROUTE, _DELETE_ROUTE, _DESTINATION, _PRIORITY = 24, 25, 1, 6
_ROUTE_HEAD = struct.Struct("=8BI")  # family, lengths, TOS, table, protocol, scope, type; flags


@dataclass(frozen=True, slots=True)
class VipRoute:
    """A route to a VIP; the metric says how well it is served."""

    vip: IPAddress
    metric: int


@dataclass(frozen=True, slots=True)
class VipTable:
    """What stands in the table: Tula's routes, and the destinations of others'."""

    routes: frozenset[VipRoute] = frozenset()
    foreign: tuple[IPv4Network | IPv6Network, ...] = ()


class VipRoutes(Protocol):
    """The table of one network namespace; the fake keeps it as a value."""

    def read(self) -> VipTable:
        """All that stands there. Raises KernelError."""

    def change(self, add: Iterable[VipRoute], remove: Iterable[VipRoute]) -> list[str]:
        """Adds all, then removes all: a VIP whose metric changes is there at any time. What is
        done already is no failure; what the kernel refuses is returned, a line each."""


class KernelVipRoutes:
    """The table of the network namespace that the calling thread is in."""

    def read(self) -> VipTable:
        try:
            with RtReader() as reader:
                entries = reader.table(TABLE)
        except OSError as error:
            raise KernelError(f"cannot read routing table {TABLE}: {error.strerror}") from error
        routes: set[VipRoute] = set()
        foreign: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            network = ip_network(entry.network)
            ours = entry.protocol == TABLE and entry.kind == _BLACKHOLE
            if ours and network.prefixlen == network.max_prefixlen:
                routes.add(VipRoute(network.network_address, entry.metric))
            else:
                foreign.append(network)
        return VipTable(frozenset(routes), tuple(foreign))

    def change(self, add: Iterable[VipRoute], remove: Iterable[VipRoute]) -> list[str]:
        failures: list[str] = []
        steps = [("add", route) for route in add] + [("remove", route) for route in remove]
        if not steps:
            return failures
        try:
            with NetlinkSocket(ROUTE) as netlink:
                for verb, route in steps:
                    failures += _change(netlink, verb, route)
        except OSError as error:
            failures.append(f"cannot write routing table {TABLE}: {error.strerror}")
        return failures


def _change(netlink: NetlinkSocket, verb: str, route: VipRoute) -> list[str]:
    family = socket.AF_INET if route.vip.version == 4 else socket.AF_INET6
    length = route.vip.max_prefixlen
    body = _ROUTE_HEAD.pack(family, length, 0, 0, TABLE, TABLE, 0, _BLACKHOLE, 0)
    body += attribute(_DESTINATION, route.vip.packed)
    body += attribute(_PRIORITY, struct.pack("=I", route.metric))
    try:
        if verb == "add":
            netlink.command(_NEW_ROUTE, body, CREATE | EXCLUSIVE)
        else:
            netlink.command(_DELETE_ROUTE, body)
    except OSError as error:
        if error.errno == (errno.EEXIST if verb == "add" else errno.ESRCH):
            return []
        reason = os.strerror(error.errno or 0)
        return [f"cannot {verb} the route to {route.vip} in table {TABLE}: {reason}"]
    return []
