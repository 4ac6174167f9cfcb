"""Several balancers as one system: the key ``high_availability``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from tula.model.setting import Duration, Form, Integer, Setting


class VipMac(StrEnum):
    """Which MAC address VIPs have: the active balancer's own, or VRRP's virtual one."""

    OWN = "own"
    VIRTUAL = "virtual"


class SharedFlows(StrEnum):
    """Which flows the other balancers must know."""

    MOVED = "moved"
    """those whose backend is not what the hash says"""
    ALL = "all"
    NONE = "none"


class Role(StrEnum):
    """What a balancer is among those of its configuration."""

    ACTIVE = "active"
    """it has the VIPs, or announces them as the others do"""
    STANDBY = "standby"
    """another one has them"""


@dataclass(frozen=True, slots=True)
class Vrrp:
    """VIPs by VRRPv3 (RFC 5798): one balancer holds them all, and keepalived decides which."""

    id: Annotated[
        int,
        Setting(
            "The virtual router's id: the same on all balancers, and nobody else's in the subnet.",
            Integer(1, 255),
            example="such as 84",
        ),
    ]
    interface: Annotated[
        str,
        Setting(
            "Where adverts are sent; the one with this machine's address in load_balancers when "
            "left out.",
            Form.INTERFACE,
        ),
    ] = ""
    interval: Annotated[float, Setting("The time between adverts.", Duration())] = 0.1
    mac: Annotated[
        VipMac,
        Setting(
            "The MAC address of VIPs: own: that of the active balancer's interface; virtual: "
            "VRRP's, which moves with them."
        ),
    ] = VipMac.OWN

    @property
    def virtual_macs(self) -> tuple[bytes, bytes]:
        """The virtual MAC addresses for IPv4 and IPv6 (RFC 5798, section 7.3)."""
        first, second = (bytes((0, 0, 0x5E, 0, kind, self.id)) for kind in (1, 2))
        return first, second


@dataclass(frozen=True, slots=True)
class Bgp:
    """VIPs by BGP (RFC 4271): BIRD announces a route to each, and routers spread flows (ECMP)."""

    number: Annotated[
        int,
        Setting(
            "This system's number.", Integer(1, (1 << 32) - 1), key="as", example="such as 65001"
        ),
    ]
    routers: Annotated[
        tuple[tuple[IPv4Address | IPv6Address, int], ...],
        Setting(
            "The routers' addresses, each with its AS number.",
            Form.ROUTERS,
            example="such as {10.0.0.1: 65000}",
        ),
    ]
    bfd: Annotated[
        float,
        Setting(
            "How soon a dead router or balancer is noticed (RFC 5880); 0: not by BFD.",
            Duration(zero=True),
        ),
    ] = 0.3


@dataclass(frozen=True, slots=True)
class HighAvailability:
    """Several balancers as one system; who they are, ``load_balancers`` says."""

    vrrp: Annotated[
        Vrrp | None, Setting("VIPs by VRRP: one balancer at a time holds all of them.")
    ] = None
    bgp: Annotated[Bgp | None, Setting("VIPs by BGP: every balancer announces them.")] = None
    flows: Annotated[
        SharedFlows,
        Setting(
            "Which flows the other balancers must know: moved: those whose backend is not what "
            "the hash says; all; none."
        ),
    ] = SharedFlows.MOVED
    port: Annotated[
        int,
        Setting("The UDP port on which balancers tell each other of flows.", Integer(1, 65535)),
    ] = 4790

    @property
    def enabled(self) -> bool:
        """Whether there is an engine at all."""
        return self.vrrp is not None or self.bgp is not None
