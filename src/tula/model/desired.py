"""What the machine must do: the document, made definite for one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tula.model.config import Connections, IPAddress, PortRange, Protocol
from tula.model.tunnel import Tunnels


class Choice(StrEnum):
    """How a service chooses for a new flow. What has no entry and is not new goes by hash."""

    HASH = "hash"
    TURNS = "turns"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class NextHop:
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
class DesiredBackend:
    """A backend with its number and the way to it, by IP version.

    One that is not ``present`` keeps its way, but none of the flows that it had.
    """

    name: str
    key: str
    number: int
    weight: int
    hops: Mapping[int, NextHop]
    present: bool = True


@dataclass(frozen=True, slots=True)
class DesiredService:
    """A service with its number and the tables that choose for it.

    ``table`` is the Maglev table's number, None when nobody serves; ``turns`` the number of the
    table of turns, for ``Choice.TURNS``.
    """

    name: str
    number: int
    vips: tuple[IPAddress, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    by_client: bool
    table: int | None
    turns: int | None
    choice: Choice
    backends: tuple[DesiredBackend, ...]
    probed: bool = False
    """Whether its backends are checked through the data path."""
    _packed: Mapping[int, tuple[bytes, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        packed = [vip.packed for vip in self.vips]
        by_version = {
            4: tuple(address for address in packed if len(address) == 4),
            6: tuple(address for address in packed if len(address) == 16),
        }
        object.__setattr__(self, "_packed", by_version)

    def packed_vips(self, version: int) -> tuple[bytes, ...]:
        """Its VIPs of IP version 4 or 6, as they stand in packets."""
        return self._packed[version]


@dataclass(frozen=True, slots=True)
class OwnedAddress:
    """A VIP that Tula puts on an interface."""

    address: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that the data path and the addresses of one machine must be.

    ``tables`` and ``turns`` hold, by number, the backend number of each slot. ``links`` maps the
    names of the
    interfaces in use to their indices.
    """

    interfaces: tuple[str, ...]
    links: Mapping[str, int]
    services: tuple[DesiredService, ...]
    tables: Mapping[int, tuple[int, ...]]
    turns: Mapping[int, tuple[int, ...]]
    connections: Connections
    seed: int
    addresses: tuple[OwnedAddress, ...] = field(default=())
    tunnels: Tunnels = field(default_factory=Tunnels)
    big_above: int = 0
    """IPv4 packets of more bytes than this go over ``NextHop.big``."""
