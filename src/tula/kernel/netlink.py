"""Netlink: messages and their attributes, requests, dumps, and what merely comes in.

A message is a header and a body; attributes are (length, type, value), padded to 4 bytes, and
some hold others. Source: include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

ROUTE, NETFILTER = 0, 12
"""NETLINK_ROUTE, NETLINK_NETFILTER."""
REQUEST, ACK, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
"""NLM_F_*."""
HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence, port."""

_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10
_BUFFER, _SMALL = 1 << 17, 1 << 16
"""Bytes: for an answer of a dump, and for messages that come by themselves, which are short."""
_SO_RCVBUFFORCE = 33

Message = tuple[int, int, int, memoryview]
"""Type, flags, sequence and body."""


class InterruptedDumpError(Exception):
    """Something changed while it was read; read again."""


def pack_message(kind: int, body: bytes, flags: int = REQUEST, sequence: int = 0) -> bytes:
    """One message."""
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def split_messages(data: memoryview) -> Iterator[Message]:
    """The messages of one reading of a socket."""
    at, end = 0, len(data) - HEADER.size
    while at <= end:
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def error_of(kind: int, body: memoryview) -> int | None:
    """The errno of an answer, 0 for an acknowledgement; None for any other message."""
    return -int(struct.unpack_from("=i", body)[0]) if kind == _ERROR else None


def _require_whole(done: memoryview) -> None:
    """Raises OSError for a dump that ended by an error: the end's message holds it
    (netlink_dump, af_netlink.c), such as ENOENT for a map that is gone."""
    code = -struct.unpack_from("=i", done)[0] if len(done) >= 4 else 0
    if code > 0:
        raise OSError(code, os.strerror(code))


class NetlinkSocket:
    """A socket in the network namespace of the thread that made it.

    Methods raise OSError: as the kernel refuses, or as it did in its answer.
    """

    def __init__(self, protocol: int, *, groups: int = 0, room: int = 0) -> None:
        """``groups`` are bits: what else the socket hears; ``room`` is for what may wait, in
        bytes."""
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._sequence = 0
        try:
            if room:
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
            self.socket.bind((0, groups))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """May be called twice."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def dump(self, kind: int, body: bytes, *, torn: bool = False) -> Iterator[memoryview]:
        """The bodies of all answers to a dump.

        Raises InterruptedDumpError at its end when something changed meanwhile, unless ``torn``
        takes it as it is. A socket whose dump is left half-way takes no other one.
        """
        interrupted = False
        for kind_, flags, _, answer in self._answers(kind, body, REQUEST | DUMP):
            interrupted = interrupted or bool(flags & _INTERRUPTED)
            if kind_ == _DONE:
                _require_whole(answer)
                break
            yield answer
        if interrupted and not torn:
            raise InterruptedDumpError

    def ask(self, kind: int, body: bytes, count: int = 1) -> Iterator[memoryview]:
        """The bodies of the ``count`` answers to a request that is no dump."""
        answers = self._answers(kind, body, REQUEST)
        for _ in range(count):
            yield next(answers)[3]

    def command(self, kind: int, body: bytes, flags: int = 0) -> None:
        """A request that is only acknowledged."""
        self._sequence += 1
        self.socket.send(pack_message(kind, body, REQUEST | ACK | flags, self._sequence))
        while True:
            for message in split_messages(memoryview(self.socket.recv(_BUFFER))):
                code = error_of(message[0], message[3])
                if message[2] != self._sequence or code is None:
                    continue
                if code:
                    raise OSError(code, os.strerror(code))
                return

    def _answers(self, kind: int, body: bytes, flags: int) -> Iterator[Message]:
        self._sequence += 1
        self.socket.send(pack_message(kind, body, flags, self._sequence))
        while True:
            for message in split_messages(memoryview(self.socket.recv(_BUFFER))):
                if message[2] != self._sequence:
                    continue  # left over from what was given up
                code = error_of(message[0], message[3])
                if code is not None:
                    raise OSError(code, os.strerror(code))
                yield message

    def waiting(self) -> Iterator[Message]:
        """What is there by now; never waits. Raises OSError: ENOBUFS where some were lost."""
        while True:
            try:
                data = self.socket.recv(_SMALL, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from split_messages(memoryview(data))

    def forget(self) -> None:
        """Throws away what is there by now, left over from what was given up."""
        with suppress(BlockingIOError):
            while True:
                self.socket.recv(_SMALL, socket.MSG_DONTWAIT)


_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED = 0x8000
_COMMENT = 0
"""NFTNL_UDATA_SET_ELEM_COMMENT and NFTNL_UDATA_RULE_COMMENT (libnftnl, udata.h)."""

Attributes = dict[int, memoryview]


def attributes(data: memoryview) -> Attributes:
    """The attributes of a message or of a nested attribute, by type; the last of equals."""
    found: Attributes = {}
    for kind, value in attribute_list(data):
        found[kind] = value
    return found


def attribute_list(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in order."""
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute; at most 65,531 bytes of value fit."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, value: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(_NESTED | kind, value)


def string_attribute(kind: int, text: str) -> bytes:
    """A string as the kernel wants it, with its zero."""
    return attribute(kind, text.encode(errors="surrogateescape") + b"\0")


def text_of(data: memoryview | None) -> str:
    """A string's text; empty for one that is not there. Bytes that are no text stay what they
    are (PEP 383): somebody else may have written them."""
    return bytes(data).rstrip(b"\0").decode(errors="surrogateescape") if data is not None else ""


def comment_of(userdata: memoryview) -> str:
    """The comment in libnftnl's user data, which is a list of (type, length, value)."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return text_of(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return ""


def comment_data(comment: str) -> bytes:
    """User data that holds a comment of at most 254 bytes."""
    value = comment.encode() + b"\0"
    return bytes((_COMMENT, len(value))) + value
