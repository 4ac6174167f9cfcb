"""What a machine must have to be a backend: settings, tunnels' ends, a filter, the VIPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.model.config import IPAddress

TABLE = "tula_backend"
"""The nftables table (family inet) of a backend; the balancer's is another."""
VIP_DEVICE = "tula-vips"
"""Holds the VIPs where the kernel has dummy devices, else lo does."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl, its name with slashes; any of ``fine`` will do, and ``value`` is set otherwise."""

    name: str
    value: str
    fine: frozenset[str]


@dataclass(frozen=True, slots=True)
class End:
    """The backend's end of a tunnel; of ``VIP_DEVICE`` too, which is a device without an end.

    ``kind`` as ``ip link`` has it; ``options`` are what stands behind it, and ``told`` how
    ``ip -j -d link`` tells of it. ``mac`` is empty for a device that has none of its own choice.
    ``loose``: IPv4 packets come in by it, whose way back is another interface.
    """

    name: str
    kind: str
    options: tuple[str, ...] = ()
    told: tuple[tuple[str, object], ...] = ()
    mac: str = ""
    loose: bool = False


@dataclass(frozen=True, slots=True)
class GuePort:
    """A UDP port whose packets are GUE, by the version of the outer addresses."""

    port: int
    version: int


@dataclass(frozen=True, slots=True)
class HeldVip:
    """A VIP on a device where the machine accepts it."""

    vip: IPAddress
    device: str


@dataclass(frozen=True, slots=True)
class BackendSide:
    """All of it, in the order in which it is made; what goes is removed in the reverse order.

    Silence and filter first, the VIPs last: at no moment does the machine announce a VIP, or take
    packets from somebody else's tunnel.
    """

    settings: tuple[Setting, ...] = ()
    filter: str = ""
    """The text of the table, empty when nothing needs one."""
    ports: tuple[GuePort, ...] = ()
    ends: tuple[End, ...] = ()
    vips: tuple[HeldVip, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkFact:
    """A link as the machine has it: ``told`` are its kind's own values, as ``ip -j`` has them."""

    kind: str
    mac: str
    up: bool
    told: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What a machine has of what a backend must have, and of what decides that."""

    links: Mapping[str, LinkFact] = field(default_factory=dict)
    addresses: frozenset[tuple[IPAddress, str]] = frozenset()
    """Each with the name of its interface."""
    balanced: frozenset[IPAddress] = frozenset()
    """Those that Tula's balancer put there."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Sysctls that were asked for and exist."""
    ports: frozenset[GuePort] = frozenset()
    filter: str = ""
    """How nft lists the table, empty without one."""
