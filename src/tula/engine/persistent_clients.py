"""Persistent clients as commands and the API see them: listed, and forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from tula.model.client_scopes import ClientScope, HeldClient, HeldClients, client_scopes
from tula.model.config import Config, IPAddress
from tula.plan.persistent_clients import name_client

MOST = 10_000
"""Clients of each scope that one answer has at most."""
USUAL = 1000


@dataclass(frozen=True, slots=True)
class Cleared:
    """What has come of ``forget``, or would: how many entries, None where the kernel does not
    tell; ``scopes`` are those in which the clients were."""

    entries: int | None
    scopes: tuple[ClientScope, ...]


class NoPersistenceError(Exception):
    """The service does not remember clients, or there is none of that name, in words for the
    user."""


class ClientControl(Protocol):
    """The persistent clients of the running daemon. Methods raise NoPersistenceError, BusyError
    and KernelError."""

    async def list(self, service: str | None, client: IPAddress | None, limit: int) -> bytes:
        """JSON, by ``describe_clients``."""

    async def forget(
        self,
        service: str | None,
        client: IPAddress | None,
        *,
        yes: bool = False,
        dry: bool = False,
    ) -> Cleared:
        """Forgets a client, or all; of one service's scope or of all. New connections alone are
        affected. Raises LossError for all, unless ``yes``."""


def chosen_scopes(config: Config, service: str | None) -> tuple[ClientScope, ...]:
    """The scope that the service is in, or all. Raises NoPersistenceError."""
    scopes = client_scopes(config.services)
    if service is None:
        return scopes
    found = tuple(scope for scope in scopes if service in scope.services)
    if found:
        return found
    if any(each.name == service for each in config.services):
        raise NoPersistenceError(f"service {service!r} has no persistence: it remembers no clients")
    raise NoPersistenceError(f"no service {service!r} in the running configuration")


def forgets_all(scopes: Sequence[ClientScope]) -> str:
    """What is to be meant by who forgets all clients."""
    services = [name for scope in scopes for name in scope.services]
    return (
        f"that forgets every client of {some_names(services)}: their next connections choose a "
        "backend again"
    )


def some_names(services: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    shown, more = ", ".join(services[:5]), len(services) - 5
    return f"{shown} and {more} more" if more > 0 else shown


def read_client(text: str) -> IPAddress:
    """A client's address. Raises ValueError with what is wrong, for the user."""
    try:
        return ip_address(text)
    except ValueError:
        pass
    if "/" in text:
        message = f"invalid client {text!r}; give one address of the network"
    else:
        message = f"invalid client {text!r}; give an address, such as 192.0.2.7"
    raise ValueError(message)


def describe_clients(config: Config, found: HeldClients) -> dict[str, Any]:
    """The answer of ``tula persistence list --json``, sorted by scope and client."""
    scopes = {scope.services: scope for scope in client_scopes(config.services)}
    names = _names(config)
    order = {services: number for number, services in enumerate(scopes)}
    entries = sorted(found.entries, key=lambda entry: _place(entry, order))
    return {
        "clients": [
            {
                "scope": scopes[entry.services].name if entry.services in scopes else "",
                "services": list(entry.services),
                "client": str(entry.client),
                "backend": names.get((entry.services[0], entry.backend)),
                "address": entry.backend or None,
                "seconds": None if entry.seconds is None else round(entry.seconds, 1),
            }
            for entry in entries
        ],
        "complete": not found.cut,
    }


def describe_cleared(done: Cleared, client: IPAddress | None, *, dry: bool) -> dict[str, Any]:
    """The answer of ``tula persistence clear --json``."""
    return {
        "client": None if client is None else str(client),
        "services": [name for scope in done.scopes for name in scope.services],
        "entries": done.entries,
        "dry_run": dry,
    }


def cleared_text(answer: dict[str, Any]) -> str:
    """The same in a line for people."""
    count, client = answer["entries"], answer["client"]
    of = "" if client is None else f" of client {client}"
    services: Sequence[str] = answer["services"]
    if not services:
        return "no service remembers clients"
    where = f" in {some_names(services)}"
    if count == 0:
        return f"there was no entry{of}{where}"
    many = "all entries" if count is None else f"{count} entr{'y' if count == 1 else 'ies'}"
    after = "new connections choose a backend again, those that exist go on"
    return f"forgot {many}{of}{where}: {after}"


def client_text(entry: dict[str, Any]) -> str:
    """A client for people: without the prefix of a whole address."""
    return name_client(ip_network(entry["client"]))


def _names(config: Config) -> dict[tuple[str, str], str]:
    return {
        (service.name, backend.key): backend.name
        for service in config.services
        if service.persistence is not None
        for backend in service.backends
    }


def _place(entry: HeldClient, order: dict[tuple[str, ...], int]) -> tuple[int, int, int]:
    network = entry.client
    return (
        order.get(entry.services, len(order)),
        network.version,
        int(network.network_address),
    )
