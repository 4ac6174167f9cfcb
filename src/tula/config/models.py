"""The document's shape: one pydantic model a map, one field a key.

Every service key is optional here, since ``defaults`` may give it; ``rules_service`` asks for
what is missing after merging. Which fields a document gave, ``model_fields_set`` tells.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from tula.config.fields import (
    Address,
    Addresses,
    AffinityWord,
    Announce,
    ForwardingWord,
    Interface,
    Name,
    Ports,
    Protocols,
    SchedulerWord,
    Strict,
    TunnelWord,
    integer,
)
from tula.config.monitor import HealthModel, MonitorModel
from tula.config.scalars import fault
from tula.config.settings import ConnectionsModel, MaglevModel, MarksModel, TunnelsModel
from tula.model.config import Affinity, Forwarding, Protocol, Scheduler, Tunnel

_Weight = Annotated[int, *integer(0, 65535)]


def _monitor_given(value: object) -> object:
    if value is None:
        # None is the default below, and would pass for the key left out.
        raise fault("expected a health check such as {type: tcp}; got nothing")
    return value


class BackendModel(Strict):
    """One server of a service."""

    address: Addresses = Field(description="Its address, or one IPv4 and one IPv6 address.")
    weight: _Weight = Field(default=100, description="Its share of new connections; 0: none.")


class ServiceModel(Strict):
    """One service: what the balancer answers for, and the backends that serve it."""

    vip: Addresses = Field(default=[], description="The virtual addresses.")
    protocol: Protocols = Field(default=[Protocol.TCP], description="tcp, udp or both.")
    ports: Ports = Field(
        default=[], description="Ports and ranges, or any: what no other service on the VIP names."
    )
    forwarding: ForwardingWord = Field(
        default=Forwarding.L2,
        description="l2: by MAC address, in the same subnet; l3: in a tunnel.",
    )
    tunnel: TunnelWord = Field(default=Tunnel.IPIP, description="The encapsulation of l3.")
    scheduler: SchedulerWord = Field(
        default=Scheduler.MAGLEV, description="How a backend is chosen for a new flow."
    )
    affinity: AffinityWord = Field(
        default=Affinity.CONNECTION,
        description="What keeps a client with a backend: address and port, or the address.",
    )
    announce: Announce = Field(
        default=True,
        description="true: the balancer answers ARP and ND for the VIP on the interface whose "
        "subnet holds it; false: the VIP is routed here; or an interface's name.",
    )
    backends: dict[Name, BackendModel] = Field(default={}, description="The servers, by name.")
    health: Annotated[HealthModel | None, BeforeValidator(_monitor_given)] = Field(
        default=None, description="One health check or several, and what follows from them."
    )
    checks: list[MonitorModel] = Field(
        default=[], description="Several health checks; as health: {checks: […]}."
    )


class DocumentModel(Strict):
    """Configuration of Tula, a layer-4 load balancer with direct server return."""

    interfaces: list[Interface] = Field(
        default=[], description="Where clients' packets arrive.", json_schema_extra={"minItems": 1}
    )
    load_balancers: dict[Name, Address] = Field(
        default={}, description="Every machine that balances by this document."
    )
    defaults: ServiceModel = Field(
        default_factory=ServiceModel, description="Any service keys, for every service."
    )
    connections: ConnectionsModel = Field(
        default_factory=ConnectionsModel, description="The connection table."
    )
    maglev: MaglevModel = Field(
        default_factory=MaglevModel, description="The maglev scheduler's table."
    )
    marks: MarksModel = Field(
        default_factory=MarksModel, description="The packet marks that Tula may use."
    )
    tunnels: TunnelsModel = Field(
        default_factory=TunnelsModel, description="What both ends of l3's tunnels agree on."
    )
    services: dict[Name, ServiceModel] = Field(default={}, description="The services, by name.")
