"""The expressions of nftables rules as netlink attributes, in the form that nft gives them.

Numbers are from include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
import sys
from enum import IntEnum

from tula.kernel.netlink import attribute, nested, string_attribute

ACCEPT, DROP = 1, 0
"""NF_ACCEPT, NF_DROP."""
EQUAL, AT_MOST = 0, 3
"""NFT_CMP_EQ, NFT_CMP_LTE."""
NETWORK, TRANSPORT = 1, 2
"""NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER."""
REGISTER = 1
"""NFT_REG_1: 16 bytes. It begins where NFT_REG32_00 does, so a concatenation continues behind it
in registers of 4 bytes (nft's netlink_linearize.c, netlink_gen_concat_expr)."""
_REGISTER_4 = 8
"""NFT_REG32_00."""
_INVERTED = 1


class Meta(IntEnum):
    """NFT_META_*."""

    MARK = 3
    IIF = 4
    IIFTYPE = 8
    NFPROTO = 15
    L4PROTO = 16


def register(offset: int) -> int:
    """The register that begins so many bytes behind the first."""
    return REGISTER + offset // 16 if offset % 16 == 0 else _REGISTER_4 + offset // 4


def native(value: int, length: int = 4) -> bytes:
    """A number in the machine's byte order."""
    return value.to_bytes(length, sys.byteorder)


def meta(key: Meta, to: int = REGISTER) -> bytes:
    """Loads what the kernel knows of the packet."""
    return _expression("meta", _number(2, key) + _number(1, to))


def payload(base: int, offset: int, length: int, to: int = REGISTER) -> bytes:
    """Loads ``length`` bytes at ``offset`` of a header."""
    fields = _number(1, to) + _number(2, base) + _number(3, offset) + _number(4, length)
    return _expression("payload", fields)


def socket_transparent() -> bytes:
    """Loads whether the socket that gets the packet is transparent. Ends the rule where there is
    no socket. Other than its siblings, it knows half-open connections too (nft_socket_eval)."""
    return _expression("socket", _number(1, 0) + _number(2, REGISTER))


def compare(value: bytes, how: int = EQUAL) -> bytes:
    """Goes on where the register holds that."""
    return _expression("cmp", _number(1, REGISTER) + _number(2, how) + nested(3, _data(value)))


def look_up(name: str, *, inverted: bool = False) -> bytes:
    """Goes on where the set holds what the registers do, or where it does not."""
    flags = _number(5, _INVERTED) if inverted else b""
    return _expression("lookup", string_attribute(1, name) + _number(2, REGISTER) + flags)


def count(name: str) -> bytes:
    """Counts with a named counter."""
    return _expression("objref", _number(1, 1) + string_attribute(2, name))


def verdict(code: int) -> bytes:
    """Ends the chain with it."""
    return _expression("immediate", _number(1, 0) + nested(2, nested(2, _number(1, code))))


def _expression(name: str, data: bytes) -> bytes:
    return nested(1, string_attribute(1, name) + nested(2, data))


def _data(value: bytes) -> bytes:
    return attribute(1, value)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))
