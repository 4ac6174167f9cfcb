"""Routes every probe out by ``lo``: one policy rule and one route for each IP version.

::

    84:  from all fwmark 0x54756c61 iif lo lookup 21621 proto 84
    local default dev lo table 21621 proto 84 scope host

``iif lo`` in a rule means "made by this machine" (flowi4_iif, route.c). A VIP that the machine
holds is found earlier, in the table ``local``: over ``lo`` as well.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tula.dataplane.nft.ids import PROBE_MARK
from tula.kernel.network import OWNER
from tula.model.command import Command, command
from tula.model.errors import KernelError

TABLE = 0x5475
PREFERENCE = 0x54
"""Before what VPNs and network plugins put in front of the main table (32766)."""

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_TO_TABLE, _INVERT, _LOCAL, _HOST = 1, 2, 2, 254
"""FR_ACT_TO_TBL, FIB_RULE_INVERT (fib_rules.h), RTN_LOCAL, RT_SCOPE_HOST (rtnetlink.h)."""
_OFF = {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}
"""What a kernel without IPv6 (ipv6.disable=1) answers."""


class ProbeRoute(Protocol):
    """Rules and routes for probes; known as Tula's by their protocol field, as addresses are."""

    def removal(self) -> list[Command]:
        """What removes those that are there, as commands for a machine without Tula.

        Raises KernelError.
        """

    def ensure(self, versions: Iterable[int]) -> bool:
        """Makes them for these IP versions (4, 6) and no others; returns whether anything changed.

        Raises KernelError.
        """

    def remove(self) -> bool:
        """Removes all of Tula's; returns whether there were any. Raises KernelError."""


class KernelProbeRoute:
    """The network namespace that the calling thread is in."""

    def removal(self) -> list[Command]:
        commands = []
        try:
            with IPRoute() as netlink:
                for version, family in _FAMILIES.items():
                    rules, routes = _ours(netlink, family)
                    if rules:
                        commands.append(command(f"ip -{version} rule flush protocol {OWNER}"))
                    if routes:
                        what = f"table {TABLE} proto {OWNER}"
                        commands.append(command(f"ip -{version} route flush {what}"))
        except (NetlinkError, OSError) as error:
            raise KernelError(f"cannot read the routes of probes: {error}") from error
        return commands

    def ensure(self, versions: Iterable[int]) -> bool:
        wanted = set(versions)
        changed = False
        for version, family in _FAMILIES.items():
            try:
                with IPRoute() as netlink:
                    changed |= _bring(netlink, family, version in wanted)
            except (NetlinkError, OSError) as error:
                code = getattr(error, "code", None) or getattr(error, "errno", None)
                if code in _OFF and version not in wanted:
                    continue
                reason = os.strerror(code) if isinstance(code, int) else str(error)
                raise KernelError(f"cannot route IPv{version} probes over lo: {reason}") from error
        return changed

    def remove(self) -> bool:
        return self.ensure(())


def _bring(netlink: IPRoute, family: int, wanted: bool) -> bool:
    """Has rule and route of one family exactly once, or removes them; whether anything changed."""
    rules, routes = _ours(netlink, family)
    good_rules = [rule for rule in rules if wanted and _is_rule(rule)]
    good_routes = [route for route in routes if wanted and _is_route(netlink, route)]
    changed = False
    # The route is added before the rule and removed after it: a packet that finds no route in a
    # table goes on to the next rule, and would leave by some other interface.
    if wanted and not good_routes:
        netlink.route("add", family=family, **_route(netlink))
        changed = True
    if wanted and not good_rules:
        netlink.rule("add", family=family, **_RULE)
        changed = True
    for rule in rules:
        if rule not in good_rules[:1]:
            _delete_rule(netlink, family, rule)
            changed = True
    for route in routes:
        if route not in good_routes[:1]:
            _delete_route(netlink, family, route)
            changed = True
    return changed


def _ours(netlink: IPRoute, family: int) -> tuple[list[Any], list[Any]]:
    """Tula's rules and routes of one family."""
    rules = [rule for rule in netlink.get_rules(family=family) if _attr(rule, "PROTOCOL") == OWNER]
    routes = [
        route
        for route in netlink.get_routes(family=family, table=TABLE)
        if route["proto"] == OWNER and route.get_attr("RTA_TABLE") == TABLE
    ]
    return rules, routes


_RULE: dict[str, Any] = {
    "priority": PREFERENCE,
    "fwmark": PROBE_MARK,
    "fwmask": 0xFFFFFFFF,
    "iifname": "lo",
    "table": TABLE,
    "protocol": OWNER,
}


def _attr(rule: Any, name: str) -> Any:
    return rule.get_attr(f"FRA_{name}")


def _is_rule(rule: Any) -> bool:
    """Whether it is exactly the wanted rule; the kernel may add attributes without meaning."""
    found = {name: _attr(rule, name.upper()) for name in _RULE}
    return (
        found == _RULE
        and rule["action"] == _TO_TABLE
        and not (rule["src_len"] or rule["dst_len"] or rule["tos"] or rule["flags"] & _INVERT)
    )


def _route(netlink: IPRoute) -> dict[str, Any]:
    return {
        "dst": "default",
        "type": _LOCAL,
        "scope": _HOST,
        "oif": netlink.link_lookup(ifname="lo")[0],
        "table": TABLE,
        "proto": OWNER,
    }


def _is_route(netlink: IPRoute, route: Any) -> bool:
    return bool(
        route["type"] == _LOCAL
        and route["dst_len"] == 0
        and route.get_attr("RTA_OIF") == netlink.link_lookup(ifname="lo")[0]
    )


def _delete_rule(netlink: IPRoute, family: int, rule: Any) -> None:
    named = ("PRIORITY", "FWMARK", "FWMASK", "IIFNAME", "TABLE", "PROTOCOL")
    given = {name.lower(): _attr(rule, name) for name in named if _attr(rule, name) is not None}
    with _may_be_gone():
        netlink.rule("del", family=family, **given)


def _delete_route(netlink: IPRoute, family: int, route: Any) -> None:
    given: dict[str, Any] = {"type": route["type"], "table": TABLE, "proto": OWNER}
    destination = route.get_attr("RTA_DST")
    given["dst"] = f"{destination}/{route['dst_len']}" if destination else "default"
    if route.get_attr("RTA_OIF") is not None:
        given["oif"] = route.get_attr("RTA_OIF")
    with _may_be_gone():
        netlink.route("del", family=family, scope=route["scope"], **given)


@contextmanager
def _may_be_gone() -> Iterator[None]:
    """For what somebody else may have deleted meanwhile."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESRCH):
            raise
