"""What the machine must do: the document, made definite for one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.model.config import IPAddress, PortRange, Protocol


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where packets of one IP version go for one backend: its address, over this interface."""

    address: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class DesiredBackend:
    """A backend with its number and the way to it, by IP version."""

    name: str
    key: str
    number: int
    weight: int
    hops: Mapping[int, NextHop]


@dataclass(frozen=True, slots=True)
class DesiredService:
    """A service with its number and the Maglev table that chooses for it (None: nobody serves)."""

    name: str
    number: int
    vips: tuple[IPAddress, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    by_client: bool
    table: int | None
    backends: tuple[DesiredBackend, ...]

    def vips_of(self, version: int) -> list[IPAddress]:
        """Its VIPs of IP version 4 or 6."""
        return [vip for vip in self.vips if vip.version == version]


@dataclass(frozen=True, slots=True)
class OwnedAddress:
    """A VIP that Tula puts on an interface."""

    address: IPAddress
    interface: str


@dataclass(frozen=True, slots=True)
class DesiredState:
    """Everything that the data path and the addresses of one machine must be.

    ``tables`` holds, by number, the backend number of each slot. ``links`` maps the names of the
    interfaces in use to their indices.
    """

    interfaces: tuple[str, ...]
    links: Mapping[str, int]
    services: tuple[DesiredService, ...]
    tables: Mapping[int, tuple[int, ...]]
    seed: int
    addresses: tuple[OwnedAddress, ...] = field(default=())
