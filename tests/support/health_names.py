"""The services of a health matrix, and what must be said of their backends when."""

from __future__ import annotations

import re
from typing import NamedTuple

from support.packets import FAMILIES

NETS = {
    "here": ("10.9.0.10{}", "fd09::10{}"),
    "routed": ("10.9.0.11{}", "fd09::11{}"),
    "held": ("10.9.0.12{}", "fd09::12{}"),
    "away": ("10.66.0.10{}", "fd66::10{}"),
}
"""The VIPs, by place: the balancer's; on its subnet, held by nobody, or by another machine; and
without a route there."""
PLACES = tuple(NETS)
PORTS = {"stopped": 80, "dropped": 81, "rejected": 82, "missing": 83, "echo": 84}
"""Services, by what befalls them at backend-2. The last two have a VIP of their own, which goes."""
AT_THE_VIP = ("stopped", "dropped", "rejected", "missing")
WHAT = {"here": tuple(PORTS), "routed": ("missing",), "held": AT_THE_VIP, "away": ("missing",)}
"""The services of each place."""


class Named(NamedTuple):
    """A service's name: ``str`` of it is in the configuration."""

    place: str
    what: str
    family: int

    def __str__(self) -> str:
        return f"{self.place}-{self.what}-{self.family}"

    @property
    def vip(self) -> str:
        """Its VIP."""
        return NETS[self.place][self.family == 6].format(int(self.port > 82))

    @property
    def port(self) -> int:
        """Its port."""
        return PORTS[self.what]


SERVICES = tuple(
    Named(place, what, family) for place in PLACES for what in WHAT[place] for family in FAMILIES
)

_UNREACHABLE = "no route to host|network is unreachable"
"""What the kernel says in place of silence where it knows: that nobody answers for the backend's
address, or that the backend has neither the VIP nor a route to it (ICMPv6)."""
_ASKED = {
    named: (
        rf"icmp to {re.escape(named.vip)}: (no echo reply within [\d.]+ s|{_UNREACHABLE}); "
        if named.what == "echo"
        else rf"tcp to {re.escape(named.vip)} port {named.port}: "
        rf"(no answer within [\d.]+ s|{_UNREACHABLE}); "
    )
    for named in SERVICES
}
_REFUSED = {
    named: f"tcp to {re.escape(named.vip)} port {named.port}: connection refused; nothing listens "
    f"on the VIP's port {named.port}"
    for named in SERVICES
}
_NOT_THE_VIP = "the backend serves, but does not accept the VIP; "
_NO_ENDPOINT = "it has no tunnel endpoint: forwarded packets are answered with "


def wanted_reason(when: str, named: Named, backend: str, tunnelled: bool) -> str:
    """What a backend's reason must be when it is to be down, as a pattern; else ""."""
    asked = _ASKED[named]
    if (when, backend) == ("first", "backend-2"):
        if named.what == "stopped":
            return _REFUSED[named]
        if named.what == "rejected":
            rejected = (
                ", or a firewall rejects packets to it; the backend serves on its own address"
            )
            return _REFUSED[named] + rejected
        if named.what == "dropped":
            accepts = "the backend serves and accepts the VIP, but its port 81 is filtered or .*"
            return asked + accepts
        return f"{asked}{_NOT_THE_VIP}forwarded packets arrive, so the VIP is not .*"
    if (when, backend) == ("second", "backend-2"):
        if named.what == "echo":
            return f"{asked}the host does not answer pings to its own address either"
        return f"{asked}the host does not answer at all"
    if (when, backend, tunnelled) == ("first", "backend-3", True):
        return f"{asked}{_NOT_THE_VIP}{_NO_ENDPOINT}'(port|protocol) unreachable'"
    if (when, backend, tunnelled) == ("second", "backend-3", True) and named.family == 4:
        # IPv6 has no such filter. By L2, packets come in where the way back leaves.
        return f"{asked}{_NOT_THE_VIP}forwarded packets are dropped silently; check its rp_filter.*"
    return ""
