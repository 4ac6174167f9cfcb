"""Netlink's attributes: (length, type, value), padded to 4 bytes; some hold others.

Source: include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

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
