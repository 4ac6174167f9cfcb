"""What a machine needs to be a backend: sysctls, tunnel devices, a packet filter, the VIPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.model.config import IPAddress

TABLE = "tula_backend"
"""The nftables table (family inet) of a backend; the balancer's has another name."""
VIP_DEVICE = "tula-vips"
"""Holds the VIPs if the kernel has dummy devices; otherwise lo does."""


UNMANAGED_FILE = "/run/systemd/network/00-0-tula-backend.network"
"""Before any file of the administrator's, whose names begin with two digits: networkd uses the
first that matches. Gone after a reboot, as all of a backend's setup."""
UNMANAGED = """\
# Written by "tula backend join", removed by "tula backend leave".
[Match]
Name=tula-*

[Link]
Unmanaged=yes
"""
"""Keeps systemd-networkd off a backend's devices, from which it would remove the VIPs."""


def disable_ipv6(device: str) -> str:
    """The name of the sysctl that disables IPv6 on a device, with slashes."""
    return f"net/ipv6/conf/{device}/disable_ipv6"


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl, its name with slashes: ``value`` is written unless it is one of ``accepted``."""

    name: str
    value: str
    accepted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Device:
    """A tunnel device of the backend, or the dummy device that holds the VIPs.

    ``kind`` and ``options`` are arguments of ``ip link add``; ``attributes`` are what
    ``ip -j -d link`` shows for them. ``mac`` is empty where the kernel may choose it.
    ``loose_rp_filter``: IPv4 packets arrive on it although the route back to their source uses
    another interface.
    """

    name: str
    kind: str
    options: tuple[str, ...] = ()
    attributes: tuple[tuple[str, object], ...] = ()
    mac: str = ""
    loose_rp_filter: bool = False


@dataclass(frozen=True, slots=True)
class GuePort:
    """A UDP port on which the kernel decapsulates GUE, and the version of the outer header."""

    port: int
    version: int


@dataclass(frozen=True, slots=True)
class VipAddress:
    """A VIP as an address of a local device."""

    vip: IPAddress
    device: str


@dataclass(frozen=True, slots=True)
class BackendSetup:
    """All that a backend needs, in the order of creation; removal goes in the reverse order.

    ARP settings and the filter come first and the VIPs last, so that the machine never announces a
    VIP and never accepts packets from somebody else's tunnel, not even for a moment.
    """

    settings: tuple[Setting, ...] = ()
    unmanaged: str = ""
    """The path of the file ``UNMANAGED``; empty where there is no systemd-networkd to heed it."""
    filter: str = ""
    """The nftables table as text; empty if none is needed."""
    ports: tuple[GuePort, ...] = ()
    devices: tuple[Device, ...] = ()
    vips: tuple[VipAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedLink:
    """A network device as it exists now; ``attributes`` are those of its kind in ``ip -j -d``."""

    kind: str
    mac: str
    up: bool
    attributes: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What exists on a machine, as far as a backend's setup is concerned."""

    links: Mapping[str, ObservedLink] = field(default_factory=dict)
    addresses: frozenset[tuple[IPAddress, str]] = frozenset()
    """Each with the name of its interface."""
    balanced: frozenset[IPAddress] = frozenset()
    """Those that Tula's balancer added."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The requested sysctls that exist."""
    ports: frozenset[GuePort] = frozenset()
    filter: str = ""
    """The table as nft lists it; empty if there is none."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The requested files that exist."""
    ipv6: bool = True
    """Whether the kernel has IPv6 at all."""
    lengths: Mapping[tuple[IPAddress, str], int] = field(default_factory=dict)
    """The prefix lengths of ``addresses``, where they are known."""
