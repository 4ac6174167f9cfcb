"""What the kernel reports of changes: links, addresses, routes, policy rules, and nftables.

Message and attribute numbers: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, nfnetlink.h
and nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Protocol

from tula.kernel.netlink import (
    NETFILTER,
    ROUTE,
    NetlinkSocket,
    attribute_list,
    attributes,
    pack_message,
)
from tula.kernel.packet_filter import attach
from tula.kernel.rtnetlink import read_neighbour
from tula.model.config import IPAddress
from tula.model.errors import KernelError

_LINK, _ADDRESS4, _ROUTE4, _ADDRESS6, _ROUTE6 = 0x1, 0x10, 0x40, 0x100, 0x400
_RULE4, _RULE6, _SETTINGS4 = 1 << 8 - 1, 1 << 19 - 1, 1 << 24 - 1
"""RTNLGRP_IPV4_RULE and _IPV6_RULE; RTNLGRP_IPV4_NETCONF reports ``rp_filter`` (devinet.c)."""
_NEIGHBOUR_GROUP, _NFTABLES_GROUP = 3, 7
"""RTMGRP_* and RTNLGRP_* as bits; RTNLGRP_NEIGH and NFNLGRP_NFTABLES as their numbers."""
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_NEW_GENERATION, _GET_GENERATION = 10 << 8 | 15, 10 << 8 | 16
_GENERATION = 1
_LINK_HEADER = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_ADDRESS_HEADER = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_LINK_ATTRIBUTES = {1, 3, 4, 10, 16, 18, 27, 33}
"""IFLA_ADDRESS, _IFNAME, _MTU, _MASTER, _OPERSTATE, _LINKINFO, _GROUP, _CARRIER: no counters."""
_LIFETIMES = 6
"""IFA_CACHEINFO, which every router advertisement reports again."""
_ROOM = 1 << 20
"""Bytes of events that may wait: some thousand addresses or routes at once."""

# A transaction is reported element by element before its generation is: a hundred thousand of
# them would leave no room for that. This filter passes nothing else; the generation comes in a
# message of its own (nf_tables_gen_notify). It loads the message's type, at byte 4 in the machine's
# byte order, as if in network order.
_TYPE = int.from_bytes(struct.pack("=H", _NEW_GENERATION), "big")
_ONLY_GENERATIONS = (
    (0x28, 0, 0, 4),  # ldh [4]
    (0x15, 0, 1, _TYPE),  # jeq: else skip one
    (0x06, 0, 0, 0xFFFFFFFF),  # pass all of it
    (0x06, 0, 0, 0),  # drop it
)


class _Message(IntEnum):
    """Types of rtnetlink's messages."""

    NEW_LINK = 16
    DELETE_LINK = 17
    NEW_ADDRESS = 20
    DELETE_ADDRESS = 21
    NEW_NEIGHBOUR = 28
    DELETE_NEIGHBOUR = 29


_DELETIONS = (_Message.DELETE_LINK, _Message.DELETE_ADDRESS, _Message.DELETE_NEIGHBOUR)


@dataclass(frozen=True, slots=True)
class Events:
    """What happened since the last ``drain``.

    ``network``: a link, an address, a route, a policy rule or an interface's setting changed.
    ``generations``: nftables' generation after each change, Tula's own included.
    ``lost``: there was more than there was room for, so anything may have changed.
    """

    network: bool = False
    generations: tuple[int, ...] = ()
    lost: bool = False

    def __bool__(self) -> bool:
        return self.network or self.lost or bool(self.generations)


class EventSource(Protocol):
    """The events of one network namespace; a test makes those of the fake."""

    def filenos(self) -> tuple[int, ...]:
        """File descriptors that can be read when there are events, for an event loop."""

    def drain(self) -> Events:
        """The events that wait; returns at once. Raises KernelError."""

    def watch_neighbours(self, addresses: Collection[IPAddress]) -> None:
        """Has changes of these neighbours' MAC addresses count as the network's."""

    def muted(self) -> AbstractContextManager[None]:
        """For a change of many elements: nftables is not listened to inside.

        Behind it, the generation is reported once, whatever it is then.
        """


class KernelEvents:
    """Events from ``open`` on, of the network namespace that the opening thread is in.

    Without ``routes``, none of routes and policy rules: a router has thousands a second.
    """

    def __init__(self, routes: bool = True) -> None:
        self._routes = routes
        self._network: NetlinkSocket | None = None
        self._nftables: NetlinkSocket | None = None
        self._known: dict[tuple[object, ...], object] = {}
        self._neighbours: frozenset[bytes] = frozenset()

    def open(self) -> None:
        """Starts to listen. Raises KernelError."""
        groups = _LINK | _ADDRESS4 | _ADDRESS6 | _SETTINGS4
        if self._routes:
            groups |= _ROUTE4 | _ROUTE6 | _RULE4 | _RULE6
        try:
            self._network = NetlinkSocket(ROUTE, groups=groups, room=_ROOM)
            self._nftables = NetlinkSocket(NETFILTER, room=_ROOM)
            # The filter before the group: nothing else may get in.
            attach(self._nftables.socket, _ONLY_GENERATIONS)
            self._nftables.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
        except OSError as error:
            self.close()
            raise KernelError(f"cannot watch the kernel: {error.strerror}") from error

    def close(self) -> None:
        """Stops it; may be called twice."""
        for netlink in (self._network, self._nftables):
            if netlink is not None:
                netlink.close()
        self._network = self._nftables = None
        self._known.clear()

    def __enter__(self) -> KernelEvents:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def filenos(self) -> tuple[int, ...]:
        return tuple(n.socket.fileno() for n in (self._network, self._nftables) if n is not None)

    def drain(self) -> Events:
        lost = network = False
        generations = []
        for kind, body in _received(self._network):
            if body is None:
                lost = True
                self._known.clear()
            else:
                network = self._is_change(kind, body) or network
        for kind, body in _received(self._nftables):
            if body is None:
                lost = True
            elif kind == _NEW_GENERATION:
                generations.append(int.from_bytes(attributes(body[4:])[_GENERATION], "big"))
        return Events(network, tuple(generations), lost)

    def watch_neighbours(self, addresses: Collection[IPAddress]) -> None:
        wanted = frozenset(address.packed for address in addresses)
        if self._network is None or wanted == self._neighbours:
            return
        # Only while there are some: every neighbour's state changes every few seconds.
        if bool(wanted) != bool(self._neighbours):
            option = _ADD_MEMBERSHIP if wanted else _DROP_MEMBERSHIP
            self._network.socket.setsockopt(_SOL_NETLINK, option, _NEIGHBOUR_GROUP)
        self._neighbours = wanted

    @contextmanager
    def muted(self) -> Iterator[None]:
        # While anyone listens, the kernel makes a message of 4 KiB for each element of a
        # transaction before it sends the first (nf_tables_setelem_notify, Linux 6.18): replacing
        # 65,537 elements takes 800 MiB, and up to ten times as long.
        netlink = self._nftables
        if netlink is None:
            yield
            return
        netlink.socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _NFTABLES_GROUP)
        try:
            yield
        finally:
            netlink.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
            # The answer looks like an event, and drain reads it as one.
            netlink.socket.send(pack_message(_GET_GENERATION, bytes(4)))

    def _is_change(self, kind: int, body: memoryview) -> bool:
        """Whether a message differs from the last one about the same object."""
        match kind:
            case _Message.NEW_LINK | _Message.DELETE_LINK:
                family, _, index, flags, _ = _LINK_HEADER.unpack_from(body)
                if family != socket.AF_UNSPEC:
                    return False  # about a bridge port, or about IPv6 on the link
                state = _selected(body[_LINK_HEADER.size :], _LINK_ATTRIBUTES)
                about: tuple[object, ...] = ("link", index)
                now: object = (flags, state)
            case _Message.NEW_ADDRESS | _Message.DELETE_ADDRESS:
                family, length, flags, scope, index = _ADDRESS_HEADER.unpack_from(body)
                found = {k: bytes(v) for k, v in attribute_list(body[_ADDRESS_HEADER.size :])}
                # IFA_LOCAL, else IFA_ADDRESS
                about = ("address", index, length, found.get(2, found.get(1)))
                found.pop(_LIFETIMES, None)
                now = (flags, scope, tuple(sorted(found.items())))
            case _Message.NEW_NEIGHBOUR | _Message.DELETE_NEIGHBOUR:
                address, mac = read_neighbour(body)
                if address not in self._neighbours:
                    return False
                about, now = ("neighbour", address), mac
            case _:
                return True
        if kind in _DELETIONS:
            self._known.pop(about, None)
            return True
        before = self._known.get(about)
        self._known[about] = now
        return now != before


def _received(netlink: NetlinkSocket | None) -> Iterator[tuple[int, memoryview | None]]:
    """The (type, body) of all messages that wait; a body of None where some were lost."""
    while netlink is not None:
        try:
            for kind, _, _, body in netlink.waiting():
                yield kind, body
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise KernelError(f"cannot watch the kernel: {error.strerror}") from error
            yield 0, None


def _selected(body: memoryview, kinds: set[int]) -> tuple[tuple[int, bytes], ...]:
    return tuple(sorted((k, bytes(v)) for k, v in attribute_list(body) if k in kinds))
