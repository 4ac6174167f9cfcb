"""What changes behind Tula's back: links, addresses, routes and policy rules, and nftables.

Message and attribute numbers: include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, nfnetlink.h
and nf_tables.h.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator
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
from tula.model.errors import KernelError

_LINK, _ADDRESS4, _ROUTE4, _ADDRESS6, _ROUTE6 = 0x1, 0x10, 0x40, 0x100, 0x400
_RULE4, _RULE6, _SETTINGS4 = 1 << 8 - 1, 1 << 19 - 1, 1 << 24 - 1
"""RTNLGRP_IPV4_RULE and _IPV6_RULE; RTNLGRP_IPV4_NETCONF tells of ``rp_filter`` (devinet.c)."""
_NFTABLES_GROUP = 7
"""RTMGRP_* and RTNLGRP_* as bits; NFNLGRP_NFTABLES as its number."""
_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_NEW_GENERATION, _GET_GENERATION = 10 << 8 | 15, 10 << 8 | 16
_GENERATION = 1
_LINK_HEADER = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_ADDRESS_HEADER = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_TOLD_OF_LINK = {1, 3, 4, 10, 16, 18, 27, 33}
"""IFLA_ADDRESS, _IFNAME, _MTU, _MASTER, _OPERSTATE, _LINKINFO, _GROUP, _CARRIER: without counts."""
_LIFETIMES = 6
"""IFA_CACHEINFO, which every router advertisement tells anew."""
_ROOM = 1 << 20
"""Bytes of events that may wait: some thousand addresses or routes at once."""
_SO_ATTACH_FILTER = 26

# A transaction tells of each of its elements before it tells its generation: a hundred thousand
# of them would push that out. This filter (classic BPF, linux/filter.h) lets nothing else in; the
# generation comes in a message of its own (nf_tables_gen_notify). It loads the message's type,
# which stands at byte 4 in the machine's order, as if in network order.
_TYPE = int.from_bytes(struct.pack("=H", _NEW_GENERATION), "big")
_ONLY_GENERATIONS = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x28, 0, 0, 4),  # ldh [4]
        (0x15, 0, 1, _TYPE),  # jeq: else skip one
        (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
        (0x06, 0, 0, 0),  # leave it
    )
)


class _Message(IntEnum):
    """Types of rtnetlink's messages."""

    NEW_LINK = 16
    DELETE_LINK = 17
    NEW_ADDRESS = 20
    DELETE_ADDRESS = 21


@dataclass(frozen=True, slots=True)
class Events:
    """What happened since the last look.

    ``network``: a link, an address, a route, a policy rule or an interface's setting changed.
    ``generations``: what nftables' generation became by each change, Tula's own included.
    ``lost``: there was more than could be kept, so anything may have changed.
    """

    network: bool = False
    generations: tuple[int, ...] = ()
    lost: bool = False

    def __bool__(self) -> bool:
        return self.network or self.lost or bool(self.generations)


class EventSource(Protocol):
    """The events of one network namespace; those of the fake are what a test says."""

    def filenos(self) -> tuple[int, ...]:
        """File descriptors that can be read when there are events, for an event loop."""

    def drain(self) -> Events:
        """What is there now; never waits. Raises KernelError."""

    def aside(self) -> AbstractContextManager[None]:
        """For a change of many elements: nftables is not heard inside.

        After it the generation is told once, whatever it is then.
        """


class KernelEvents:
    """Events from ``open`` on, of the network namespace that the opening thread is in."""

    def __init__(self) -> None:
        self._network: NetlinkSocket | None = None
        self._nftables: NetlinkSocket | None = None
        self._known: dict[tuple[object, ...], object] = {}

    def open(self) -> None:
        """Begins to listen. Raises KernelError."""
        groups = _LINK | _ADDRESS4 | _ADDRESS6 | _ROUTE4 | _ROUTE6
        groups |= _RULE4 | _RULE6 | _SETTINGS4
        try:
            self._network = NetlinkSocket(ROUTE, groups=groups, room=_ROOM)
            self._nftables = NetlinkSocket(NETFILTER, room=_ROOM)
            # The filter before the group: nothing else may ever come in.
            _attach(self._nftables.socket, _ONLY_GENERATIONS)
            self._nftables.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
        except OSError as error:
            self.close()
            raise KernelError(f"cannot watch the kernel: {error.strerror}") from error

    def close(self) -> None:
        """Ends it; may be called twice."""
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
                network = self._is_news(kind, body) or network
        for kind, body in _received(self._nftables):
            if body is None:
                lost = True
            elif kind == _NEW_GENERATION:
                generations.append(int.from_bytes(attributes(body[4:])[_GENERATION], "big"))
        return Events(network, tuple(generations), lost)

    @contextmanager
    def aside(self) -> Iterator[None]:
        # For someone who listens, the kernel makes a message of 4 KiB for each element of a
        # transaction before it sends the first (nf_tables_setelem_notify, Linux 6.18): for 65,537
        # elements replaced 800 MiB, and up to ten times the time.
        netlink = self._nftables
        if netlink is None:
            yield
            return
        netlink.socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, _NFTABLES_GROUP)
        try:
            yield
        finally:
            netlink.socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFTABLES_GROUP)
            # The answer has the form of an event, and comes to drain as one.
            netlink.socket.send(pack_message(_GET_GENERATION, bytes(4)))

    def _is_news(self, kind: int, body: memoryview) -> bool:
        """Whether a message says what the last one about the same did not."""
        match kind:
            case _Message.NEW_LINK | _Message.DELETE_LINK:
                family, _, index, flags, _ = _LINK_HEADER.unpack_from(body)
                if family != socket.AF_UNSPEC:
                    return False  # of a bridge's port, or what IPv6 has to say of the link
                told = _chosen(body[_LINK_HEADER.size :], _TOLD_OF_LINK)
                about: tuple[object, ...] = ("link", index)
                now: object = (flags, told)
            case _Message.NEW_ADDRESS | _Message.DELETE_ADDRESS:
                family, length, flags, scope, index = _ADDRESS_HEADER.unpack_from(body)
                found = {k: bytes(v) for k, v in attribute_list(body[_ADDRESS_HEADER.size :])}
                # IFA_LOCAL, else IFA_ADDRESS
                about = ("address", index, length, found.get(2, found.get(1)))
                found.pop(_LIFETIMES, None)
                now = (flags, scope, tuple(sorted(found.items())))
            case _:
                return True
        if kind in (_Message.DELETE_LINK, _Message.DELETE_ADDRESS):
            self._known.pop(about, None)
            return True
        before = self._known.get(about)
        self._known[about] = now
        return now != before


def _attach(netlink: socket.socket, program: bytes) -> None:
    """Attaches a filter; struct sock_fprog holds its length and where it stands."""
    held = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    netlink.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


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


def _chosen(body: memoryview, kinds: set[int]) -> tuple[tuple[int, bytes], ...]:
    return tuple(sorted((k, bytes(v)) for k, v in attribute_list(body) if k in kinds))
