"""The persistent clients that nftables' maps hold. See ``DataPath`` for what each promises."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network

from tula.dataplane.nft.client_maps import clients_map
from tula.dataplane.nft.codec import RawElement
from tula.dataplane.nft.ids import Ids, split_id
from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import FlushMap, ForgetEntry
from tula.kernel.nftables import Nftables
from tula.model.client_scopes import ClientScope, HeldClient, HeldClients
from tula.model.config import IPAddress
from tula.model.errors import KernelError


def list_clients(
    nftables: Nftables, scopes: Sequence[ClientScope], ids: Ids, limit: int
) -> HeldClients:
    """At most ``limit`` clients of each scope."""
    found: list[HeldClient] = []
    cut = False
    sizes, keys = _sizes(nftables), _keys(ids)
    for scope in scopes:
        held = [
            _held(scope, raw, keys)
            for name in _maps(scope, sizes)
            for raw in nftables.entries_of(name, limit + 1)
        ]
        cut = cut or len(held) > limit
        found += held[:limit]
    return HeldClients(tuple(found), cut)


def forget_clients(
    nftables: Nftables, scopes: Sequence[ClientScope], client: IPAddress | None
) -> int | None:
    """Deletes the entries of one client, or all."""
    sizes = _sizes(nftables)
    if client is not None:
        return sum(
            _forget(nftables, name, _key(scope, client))
            for scope in scopes
            for name in _maps(scope, sizes)
            if _version(name) == client.version
        )
    names = [name for scope in scopes for name in _maps(scope, sizes)]
    held = [sizes[str(name)] for name in names]
    nftables.run(tuple(FlushMap(name) for name in names))
    known = [count for count in held if count is not None]
    return sum(known) if len(known) == len(held) else None


def look_up_client(
    nftables: Nftables, scope: ClientScope, client: IPAddress, ids: Ids
) -> HeldClient | None:
    """One client's entry."""
    for name in _maps(scope, _sizes(nftables)):
        if _version(name) == client.version:
            raw = nftables.entry_of(name, _key(scope, client))
            if raw is not None:
                return _held(scope, raw, _keys(ids))
    return None


def _sizes(nftables: Nftables) -> dict[str, int | None]:
    """How many each map of clients holds, by name."""
    there = nftables.entries() if nftables.exists() else {}
    return {name: count for name, count in there.items() if name.startswith("clients")}


def _maps(scope: ClientScope, there: dict[str, int | None]) -> list[MapName]:
    """Those that are there; while one replaces another of a smaller size, there are two."""
    parsed = [name for text in there if (name := MapName.parse(text)) is not None]
    return [
        name
        for version in scope.versions
        for name in parsed
        if name == clients_map(scope, version, name.size)
    ]


def _version(name: MapName) -> int:
    return 4 if name.kind is Kind.CLIENTS4 else 6


def _key(scope: ClientScope, client: IPAddress) -> bytes:
    return scope.client(client).network_address.packed


def _forget(nftables: Nftables, name: MapName, key: bytes) -> int:
    """Deletes the entry; how many that were."""
    if nftables.entry_of(name, key) is None:
        return 0
    try:
        nftables.run((ForgetEntry(name, key),))
    except KernelError:
        if nftables.entry_of(name, key) is None:
            return 0  # its time was over just then
        raise
    return 1


def _keys(ids: Ids) -> dict[int, str]:
    """``Backend.key`` by its number."""
    return {number: key for key, number in ids.backends.items()}


def _held(scope: ClientScope, raw: RawElement, keys: Mapping[int, str]) -> HeldClient:
    mark = int.from_bytes(raw.data, sys.byteorder) if isinstance(raw.data, bytes) else 0
    address = ip_address(raw.key)
    client = ip_network((address, scope.settings.bits(address.version)))
    return HeldClient(scope.services, client, keys.get(split_id(mark)[1], ""), raw.seconds)
