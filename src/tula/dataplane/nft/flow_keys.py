"""The keys of the maps that packets fill, computed, to ask the kernel about one flow."""

from __future__ import annotations

import sys
from collections.abc import Collection

from tula.dataplane.nft.lookup3 import lookup3
from tula.dataplane.nft.packet_fields import KEY_RANGE, KEY_SEEDS
from tula.dataplane.nft.ruleset import Kind, MapName
from tula.model.config import Protocol
from tula.model.flow import Flow

_TABLES = {
    (4, Protocol.TCP): (Kind.TCP4, Kind.CLOSED4),
    (4, Protocol.UDP): (Kind.UDP4,),
    (6, Protocol.TCP): (Kind.TCP6, Kind.CLOSED6),
    (6, Protocol.UDP): (Kind.UDP6,),
}


def flow_tables(flow: Flow, present: Collection[str]) -> list[MapName]:
    """The tables that may hold the flow, of those that are present, in the order of look-ups."""
    kinds = _TABLES[flow.vip.version, flow.protocol]
    return [name for kind in kinds for name in _of_kind(kind, present)]


def flow_key(flow: Flow) -> bytes:
    """The flow's key; FLOW_KEY is the same as an nft expression."""
    client, vip = flow.client.packed, flow.vip.packed
    client_port, port = (
        _padded(number.to_bytes(2, "big")) for number in (flow.client_port, flow.port)
    )
    if flow.vip.version == 4:
        return client + client_port + vip + port
    hashed = zip((client + vip, client_port + port), KEY_SEEDS, strict=True)
    return b"".join(_hash(fields, seed) for fields, seed in hashed)


def fragment_tables(flow: Flow, present: Collection[str]) -> list[MapName]:
    """The same for the flow's fragmented datagrams."""
    return _of_kind(Kind.FRAG4 if flow.vip.version == 4 else Kind.FRAG6, present)


def fragment_key(flow: Flow, datagram: int) -> bytes:
    """The key of one datagram's fragments; FRAGMENT_KEY is the same as an nft expression."""
    addresses = flow.client.packed + flow.vip.packed
    if flow.vip.version == 6:
        return _hash(addresses + datagram.to_bytes(4, "big"), KEY_SEEDS[0])
    protocol = bytes([flow.protocol.number])
    return addresses + _padded(datagram.to_bytes(2, "big")) + _padded(protocol)


def _of_kind(kind: Kind, present: Collection[str]) -> list[MapName]:
    names = (MapName.parse(name) for name in present)
    return [name for name in names if name is not None and name.kind is kind]


def _padded(field: bytes) -> bytes:
    """A field in registers of 4 bytes (nf_tables.h)."""
    return field.ljust((len(field) + 3) & ~3, b"\0")


def _hash(fields: bytes, seed: int) -> bytes:
    """``jhash FIELDS mod KEY_RANGE seed SEED``, as a register holds it."""
    return ((lookup3(fields, seed) * KEY_RANGE) >> 32).to_bytes(4, sys.byteorder)
