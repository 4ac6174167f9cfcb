"""One client's packets, and what a data path holds for them."""

from __future__ import annotations

from dataclasses import dataclass

from tula.model.config import IPAddress, Protocol


@dataclass(frozen=True, slots=True)
class Flow:
    """One client's packets to one VIP and port."""

    client: IPAddress
    client_port: int
    vip: IPAddress
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class FlowEntry:
    """What the connection table holds for a flow: the service's name and ``Backend.key``."""

    service: str
    backend: str
