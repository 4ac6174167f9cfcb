"""The desired state in the terms of the rules: numbers for services, backends and tables; devices.

Packet marks carry the numbers (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.tunnel_devices import Tunnels
from tula.model.admission import Admission
from tula.model.client_scopes import ClientScope
from tula.model.config import Connections, IPAddress, PortRange, Protocol
from tula.model.desired import NewFlows, SharedWith, SlotTable


@dataclass(frozen=True, slots=True)
class NumberedHop:
    """Where packets of one IP version go for one backend: its address, over this interface.

    In a tunnel the address only names a neighbour of its device, and need not be the backend's
    (``named``: it is). Packets that are too large go over ``big``, if there is one.
    """

    address: IPAddress
    interface: str
    big: str = ""
    named: bool = True
    packed: bytes = field(init=False, repr=False, compare=False)
    """The address as it stands in packets."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", self.address.packed)


@dataclass(frozen=True, slots=True)
class NumberedBackend:
    """A backend with its number and the next hops to it, by IP version.

    One that is not ``present`` keeps its next hops, but none of the flows that it had. One that is
    ``own`` has none: it is this machine.
    """

    name: str
    key: str
    number: int
    weight: int
    hops: Mapping[int, NumberedHop]
    present: bool = True
    keeps_clients: bool = True
    own: bool = False


@dataclass(frozen=True, slots=True)
class NumberedService:
    """A service with its number and the tables that choose for it.

    ``table`` is the Maglev table's number, None when nobody serves; ``wrr`` the number of the
    table of round robin, for ``NewFlows.ROUND_ROBIN``.
    """

    name: str
    number: int
    vips: tuple[IPAddress, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    by_client: bool
    table: int | None
    wrr: int | None
    choice: NewFlows
    backends: tuple[NumberedBackend, ...]
    probed: bool = False
    """Whether its backends are checked through the data path."""
    persistence: ClientScope | None = None
    """Where its clients are remembered."""
    per_packet: bool = False
    """Whether each UDP packet is scheduled by itself, and no table holds its flow."""
    admission: Admission | None = None
    """None: everybody may connect."""
    _packed: Mapping[int, tuple[bytes, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        packed = [vip.packed for vip in self.vips]
        by_version = {
            4: tuple(address for address in packed if len(address) == 4),
            6: tuple(address for address in packed if len(address) == 16),
        }
        object.__setattr__(self, "_packed", by_version)

    @property
    def flow_protocols(self) -> tuple[Protocol, ...]:
        """The protocols whose flows stay with a backend."""
        if not self.per_packet:
            return self.protocols
        return tuple(each for each in self.protocols if each is not Protocol.UDP)

    def packed_vips(self, version: int) -> tuple[bytes, ...]:
        """Its VIPs of IP version 4 or 6, as they stand in packets."""
        return self._packed[version]


@dataclass(frozen=True, slots=True, eq=False)
class NumberedTable:
    """A table with the backends' numbers, in the order of its content. Compared by identity."""

    table: SlotTable
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.table.slots)


@dataclass(frozen=True, slots=True)
class NumberedState:
    """Everything that the table and the tunnel devices of one machine must be.

    ``tables`` and ``wrr`` go by their number. ``links`` maps the names of the interfaces in use
    to their indices.
    """

    interfaces: tuple[str, ...]
    links: Mapping[str, int]
    services: tuple[NumberedService, ...]
    tables: Mapping[int, NumberedTable]
    wrr: Mapping[int, NumberedTable]
    connections: Connections
    seed: int
    tunnels: Tunnels = field(default_factory=Tunnels)
    big_above: int = 0
    """IPv4 packets of more bytes than this go over ``NumberedHop.big``."""
    headerless: frozenset[str] = frozenset()
    """Those of ``interfaces`` whose packets come without an Ethernet header."""
    virtual_macs: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    """VRRP's virtual MAC addresses by the interface where frames for them arrive."""
    shared_with: SharedWith | None = None
    forwarders: tuple[bytes, ...] = ()
    """The MAC addresses of balancers that may send this machine packets as their backend."""
    counts_often: bool = False
    """Whether connections are counted all the time, and not only while a backend drains."""
