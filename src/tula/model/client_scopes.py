"""Which services remember a client together, and what is held for the clients of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_network

from tula.model.admission import IPNetwork
from tula.model.config import IPAddress, VirtualService
from tula.model.persistence import SCOPE_SERVICE, SCOPE_VIP, Persistence


@dataclass(frozen=True, slots=True)
class ClientScope:
    """The services that choose one backend for a client, in the configuration's order.

    ``name`` is for people: the service's, the VIP's or the one that the services give. What tells
    scopes apart is their first service.
    """

    name: str
    services: tuple[str, ...]
    settings: Persistence
    versions: tuple[int, ...]
    """The IP versions (4, 6) of their VIPs."""

    @property
    def label(self) -> str:
        """What it is called where no other scope may be called the same: ``service.web``,
        ``vip.10.0.0.100``, ``name.ftp``. Without colons, which nftables takes in no name."""
        match self.settings.scope:
            case "service":
                return f"{SCOPE_SERVICE}.{self.services[0]}"
            case "vip":
                return f"{SCOPE_VIP}.{self.name.removeprefix('vip ').replace(':', '-')}"
            case name:
                return f"name.{name}"

    def client(self, address: IPAddress) -> IPNetwork:
        """What stands for this address in it: the address as far as it tells clients apart."""
        return ip_network((address, self.settings.bits(address.version)), strict=False)


@dataclass(frozen=True, slots=True)
class HeldClient:
    """A persistent client's entry: ``Backend.key``, and the seconds that it still lives if the
    client makes no further connection; None where the data path does not tell them."""

    services: tuple[str, ...]
    client: IPNetwork
    backend: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HeldClients:
    """Persistent clients; ``cut``: there are more than were asked for."""

    entries: tuple[HeldClient, ...] = ()
    cut: bool = False


def client_scopes(services: Iterable[VirtualService]) -> tuple[ClientScope, ...]:
    """The scopes of all services with persistence, in the order of their first services.

    Services with ``scope: vip`` share one as soon as they share a VIP, be it through a third.
    """
    scopes: dict[tuple[str, str], ClientScope] = {}
    on_vips = _on_vips(services := tuple(services))
    for service in services:
        settings = service.persistence
        if settings is None:
            continue
        name = settings.scope
        if name == SCOPE_SERVICE:
            name = service.name
        elif name == SCOPE_VIP:
            name = f"vip {on_vips[service.name]}"
        one = ClientScope(name, (service.name,), settings, service.versions)
        # A service may have the name of another's scope.
        key = (settings.scope, name)
        found = scopes.get(key)
        scopes[key] = one if found is None else _joined(found, one)
    return tuple(scopes.values())


def scope_of(scopes: Iterable[ClientScope], service: str) -> ClientScope | None:
    """The scope that a service is in, if it remembers clients."""
    return next((scope for scope in scopes if service in scope.services), None)


def _joined(one: ClientScope, other: ClientScope) -> ClientScope:
    versions = tuple(sorted({*one.versions, *other.versions}))
    return replace(one, services=(*one.services, *other.services), versions=versions)


def _on_vips(services: Iterable[VirtualService]) -> dict[str, IPAddress]:
    """The VIP that stands for those of each service of ``scope: vip``: the same for two services
    that share one."""
    above: dict[IPAddress, IPAddress] = {}

    def top(vip: IPAddress) -> IPAddress:
        while (upper := above.setdefault(vip, vip)) != vip:
            above[vip] = vip = above.setdefault(upper, upper)
        return vip

    found = [s for s in services if s.persistence and s.persistence.scope == SCOPE_VIP and s.vips]
    for service in found:
        first = top(service.vips[0])
        for vip in service.vips[1:]:
            above[top(vip)] = first
    return {service.name: top(service.vips[0]) for service in found}
