"""The table that keeps services' packets from the machine's own stack while the daemon runs.

::

    table inet tula_guard { flags owner
      chain input: hook input, before all others
        ├─ from lo, or marked as meant for this machine: passes
        ├─ from an interface that is not listed, and a socket here wants it: passes
        └─ VIP, protocol and port of a service: dropped and counted

Its owner is a socket: ``nft flush ruleset`` passes over it, nobody else can change it, and it is
gone with the socket (nf_tables_api.c, nft_flush and nft_rcv_nl_event; Linux 5.12).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

from tula.dataplane.nft.codec import RawElement, encode_key
from tula.dataplane.nft.definition import INTERVAL
from tula.dataplane.nft.own_stack import GUARD_TABLE, GUARDED, KINDS, LOCAL_MARK, Guarded
from tula.dataplane.nft.ruleset import Key, Kind
from tula.dataplane.nft.transaction import PRIORITY
from tula.kernel import nft_expressions as nft
from tula.kernel.netlink import CREATE, attribute, nested, string_attribute
from tula.kernel.nft_expressions import Meta
from tula.kernel.nft_socket import BatchMessage, NftSocket, RefusedError
from tula.kernel.nft_writer import element_attribute, element_lists
from tula.model.errors import KernelError, StaleError

_INET = 1
"""NFPROTO_INET."""
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE, _NEW_SET = 0, 3, 6, 9
_NEW_ELEMENTS, _DELETE_ELEMENTS, _NEW_OBJECT = 12, 14, 18
_OWNER = 0x2
"""NFT_TABLE_F_OWNER."""
_APPEND = 0x800
"""NLM_F_APPEND."""
_INPUT = 1
"""NF_INET_LOCAL_IN."""
_COUNTER = 1
_LOOPBACK = 772
"""ARPHRD_LOOPBACK."""
_CHAIN, _LISTED = "input", "listed"
_DEVICE = 20
"""nft's type iface_index."""
_ADDRESS, _PROTOCOL, _PORT = {4: (7, 4), 6: (8, 16)}, (12, 1), (13, 2)
"""nft's types of a key's fields, and their lengths."""
_RANGES = (Kind.SERVICE_RANGE4, Kind.SERVICE_RANGE6)
_ANY_PORT = (Kind.SERVICE_ANY4, Kind.SERVICE_ANY6)
_CONCATENATED = 0x80
"""NFT_SET_CONCAT."""
_HOST_ORDER, _NETWORK_ORDER = 1, 2
"""nft's byte orders: it keeps that of a set's keys in the set's user data."""
_FAMILIES = {4: 2, 6: 10}
"""NFPROTO_IPV4, NFPROTO_IPV6."""
_DESTINATION = {4: (16, 4), 6: (24, 16)}
"""Offset and length of the destination in an IP header."""


class Guard(Protocol):
    """Keeps packets of services from the own stack, as long as the process lives."""

    @property
    def held(self) -> Guarded | None:
        """What it keeps now; None: it is not there."""

    def bring(self, want: Guarded, generation: int) -> bool:
        """Brings it to this; False if it is that already.

        ``generation``: nftables' must still be this, 0 for any. Raises StaleError if it is not,
        and KernelError; then it is as it was.
        """


class KernelGuard:
    """In the network namespace of the thread that calls it first."""

    def __init__(self) -> None:
        self._socket = NftSocket()
        self._held: Guarded | None = None

    @property
    def held(self) -> Guarded | None:
        return self._held

    def close(self) -> None:
        """Takes the table away."""
        self._socket.close()
        self._held = None

    def bring(self, want: Guarded, generation: int) -> bool:
        held = self._held
        if held is not None and held.same(want):
            return False
        messages = list(_table()) if held is None else []
        messages += _difference(held or Guarded(), want)
        try:
            self._socket.send(_INET, messages, generation)
        except RefusedError as refused:
            if refused.stale:
                raise StaleError from refused
            raise KernelError(f"the kernel refused {GUARD_TABLE}: {refused}") from refused
        except OSError as error:
            raise KernelError(f"cannot change nftables: {error.strerror}") from error
        self._held = want
        return bool(messages)


def _table() -> Iterator[BatchMessage]:
    yield _NEW_TABLE, CREATE, _named() + attribute(2, struct.pack(">I", _OWNER))
    yield _NEW_OBJECT, CREATE, _counter()
    yield _NEW_SET, CREATE, _set(_LISTED, 1, 0, (4,), _DEVICE, _HOST_ORDER)
    for number, kind in enumerate(KINDS, 2):
        fields = (_ADDRESS[int(kind[-1])], _PROTOCOL, *(() if kind in _ANY_PORT else (_PORT,)))
        types = 0
        for each, _ in fields:
            types = types << 6 | each
        lengths = tuple(length for _, length in fields)
        flags = INTERVAL | _CONCATENATED if kind in _RANGES else 0
        yield _NEW_SET, CREATE, _set(str(kind), number, flags, lengths, types, _NETWORK_ORDER)
    hook = _number(1, _INPUT) + attribute(2, struct.pack(">i", PRIORITY))
    chain = string_attribute(3, _CHAIN) + nested(4, hook) + _number(5, nft.ACCEPT)
    yield _NEW_CHAIN, CREATE, _named() + chain + string_attribute(7, "filter")
    for expressions in _rules():
        body = string_attribute(2, _CHAIN) + nested(4, b"".join(expressions))
        yield _NEW_RULE, CREATE | _APPEND, _named() + body


def _rules() -> Iterator[list[bytes]]:
    passes = nft.verdict(nft.ACCEPT)
    yield [nft.meta(Meta.IIFTYPE), nft.compare(nft.native(_LOOPBACK, 2)), passes]
    yield [nft.meta(Meta.MARK), nft.compare(nft.native(LOCAL_MARK)), passes]
    # On a listed interface such a socket would get the middle of others' connections, too.
    wanted = [nft.socket_transparent(), nft.compare(b"\1", nft.AT_MOST)]
    yield [nft.meta(Meta.IIF), nft.look_up(_LISTED, inverted=True), *wanted, passes]
    for kind in KINDS:
        version = int(kind[-1])
        offset, length = _DESTINATION[version]
        key = [
            nft.payload(nft.NETWORK, offset, length),
            nft.meta(Meta.L4PROTO, nft.register(length)),
        ]
        if kind not in _ANY_PORT:
            key.append(nft.payload(nft.TRANSPORT, 2, 2, nft.register(length + 4)))
        yield [
            nft.meta(Meta.NFPROTO),
            nft.compare(bytes([_FAMILIES[version]])),
            *key,
            nft.look_up(str(kind)),
            nft.count(GUARDED),
            nft.verdict(nft.DROP),
        ]


def _difference(held: Guarded, want: Guarded) -> Iterator[BatchMessage]:
    """Elements go before others come: a range that grows would overlap itself."""
    gone = [_device(index) for index in held.interfaces - want.interfaces]
    come = [_device(index) for index in want.interfaces - held.interfaces]
    yield from _change(_DELETE_ELEMENTS, _LISTED, gone)
    yield from _change(_NEW_ELEMENTS, _LISTED, come)
    for kind in KINDS:
        had, has = held.keys.get(kind, {}), want.keys.get(kind, {})
        if had is has:
            continue
        lost = (_element(kind, key) for key in had if key not in has)
        new = (_element(kind, key) for key in has if key not in had)
        yield from _change(_DELETE_ELEMENTS, str(kind), lost)
        yield from _change(_NEW_ELEMENTS, str(kind), new)


def _change(message: int, name: str, elements: Iterable[bytes]) -> Iterator[BatchMessage]:
    flags = CREATE if message == _NEW_ELEMENTS else 0
    where = _named() + string_attribute(2, name)
    for part in element_lists(elements):
        yield message, flags, where + nested(3, part)


def _device(index: int) -> bytes:
    return element_attribute(RawElement(nft.native(index), b""), with_data=False)


def _element(kind: Kind, key: Key) -> bytes:
    first, last = encode_key(kind, key)
    return element_attribute(RawElement(first, b"", last), with_data=False)


def _named() -> bytes:
    return string_attribute(1, GUARD_TABLE)


def _counter() -> bytes:
    zero = struct.pack(">Q", 0)
    value = nested(4, attribute(1, zero) + attribute(2, zero))
    return _named() + string_attribute(2, GUARDED) + _number(3, _COUNTER) + value


def _set(
    name: str, number: int, flags: int, lengths: tuple[int, ...], types: int, order: int
) -> bytes:
    fields = b"".join(nested(1, _number(1, length)) for length in lengths)
    padded = sum(length + -length % 4 for length in lengths)
    # NFTNL_UDATA_SET_KEYBYTEORDER: without it nft shows interfaces by other numbers.
    order_data = struct.pack("=BBI", 0, 4, order)
    return (
        _named()
        + string_attribute(2, name)
        + _number(3, flags)
        + _number(4, types)
        + _number(5, padded)
        + _number(10, number)
        + (nested(9, nested(2, fields)) if flags else b"")
        + attribute(13, order_data)
    )


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))
