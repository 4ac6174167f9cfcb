"""Tunnels as the machine has or must have them: devices, and VXLAN's knowledge of other ends."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

from tula.model.config import IPAddress

GROUP = 0x54756C61
"""The link group (IFLA_GROUP) of devices that Tula made: it tells them from others' without any
file, and stands in the request that makes them."""

LEAVING = GROUP + 1
"""The group of those that are about to go: the kernel removes a group in one go, where devices one
by one each wait for all packets under way (unregister_netdevice_many, dev.c)."""

SYNC_DEVICE = "tula-sync"
"""The device by which balancers tell each other of flows; its own name, as people look for it."""

ANY_MAC = "00:00:00:00:00:00"
"""VXLAN's entry for the destinations that it does not know: each of its ends gets a copy."""

_INDICES = 1 << 30
"""Devices get interface indices from here on: far above those that the kernel gives."""


@dataclass(frozen=True)
class TunnelDevice:
    """One tunnel device, by what makes it one; another set of these is another device.

    ``kind`` is the kernel's name of it: ``sit``, ``ipip``, ``gre``, ``ip6tnl``, ``ip6gre``,
    ``vxlan``. ``ttl`` 0 takes over that of the packet inside. ``fragments``: the outer packet may
    be fragmented. ``bound`` is the index of the interface that it leaves by, 0 for any.
    ``gue_port``: with UDP around it (GUE) to this port, the source port by flow.
    """

    kind: str
    local: IPAddress
    remote: IPAddress | None
    mtu: int
    ttl: int = 64
    fragments: bool = False
    bound: int = 0
    gue_port: int = 0
    vni: int = 0
    port: int = 0
    index: int = field(default=0, compare=False)
    called: str = field(default="", compare=False, repr=False)
    """A name that does not come from what it is."""

    @property
    def place(self) -> tuple[object, ...]:
        """What the kernel has one device of, however it is set."""
        family = self.local.version
        if self.kind == "vxlan":
            return self.kind, family, self.vni, self.port
        return self.kind, self.local, self.remote, self.bound

    @cached_property
    def name(self) -> str:
        """An interface name of 15 characters, from all that it is."""
        if self.called:
            return self.called
        text = repr(replace(self, index=0)).encode()
        digest = b32encode(blake2b(text, digest_size=7).digest()).decode().lower()
        return f"tula{digest[:11]}"

    def at(self, index: int) -> TunnelDevice:
        """The same, with this index."""
        return replace(self, index=index)

    def with_index(self, taken: frozenset[int] | set[int]) -> TunnelDevice:
        """The same, with an index made from its name that is none of ``taken``.

        So the rules, which know interfaces by index, stand still when a device is made again.
        """
        digest = blake2b(self.name.encode(), digest_size=4).digest()
        index = _INDICES + int.from_bytes(digest, "big") % (_INDICES - 1)
        while index in taken:
            index = _INDICES + (index + 1 - _INDICES) % (_INDICES - 1)
        return self.at(index)


@dataclass(frozen=True, slots=True)
class VxlanPeer:
    """Where a VXLAN device (by its name) sends frames for a MAC: to this outer address."""

    device: str
    mac: str
    remote: IPAddress


@dataclass(frozen=True, slots=True)
class VxlanNeighbour:
    """Which MAC the next hop of packets inside has, on a VXLAN device."""

    device: str
    hop: IPAddress
    mac: str


@dataclass(frozen=True, slots=True)
class Tunnels:
    """All of one machine's tunnels that are Tula's.

    ``devices`` go by the name that they have; one that was changed, or is down, is not what its
    name says (``TunnelDevice.name``), or None.
    """

    devices: Mapping[str, TunnelDevice | None] = field(default_factory=dict)
    peers: frozenset[VxlanPeer] = frozenset()
    neighbours: frozenset[VxlanNeighbour] = frozenset()
