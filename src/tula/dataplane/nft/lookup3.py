"""The kernel's flow hash, computed in Python.

Bob Jenkins' lookup3 ("hashlittle", public domain, http://burtleburtle.net/bob/hash/doobs.html)
as the nftables expression ``jhash`` uses it: the key's words are read in the machine's byte
order, and the 32-bit result is scaled to a slot by multiplication, not by modulo.
"""

from __future__ import annotations

import struct
import sys
from ipaddress import IPv4Address, IPv6Address

_MASK = 0xFFFFFFFF
# The kernel starts from this number where Jenkins' text starts from 0xdeadbeef as well,
# and adds the key's length and the seed.
_START = 0xDEADBEEF
_WORD_ORDER = "<" if sys.byteorder == "little" else ">"


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Reversibly mixes three words; the rotations are lookup3's 4, 6, 8, 16, 19, 4."""
    a = ((a - c) & _MASK) ^ _rotate(c, 4)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 6)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 8)
    b = (b + a) & _MASK
    a = ((a - c) & _MASK) ^ _rotate(c, 16)
    c = (c + b) & _MASK
    b = ((b - a) & _MASK) ^ _rotate(a, 19)
    a = (a + c) & _MASK
    c = ((c - b) & _MASK) ^ _rotate(b, 4)
    b = (b + a) & _MASK
    return a, b, c


def _finish(a: int, b: int, c: int) -> int:
    """Forces all three words into the last; the rotations are lookup3's 14, 11, 25, 16, ..."""
    c = ((c ^ b) - _rotate(b, 14)) & _MASK
    a = ((a ^ c) - _rotate(c, 11)) & _MASK
    b = ((b ^ a) - _rotate(a, 25)) & _MASK
    c = ((c ^ b) - _rotate(b, 16)) & _MASK
    a = ((a ^ c) - _rotate(c, 4)) & _MASK
    b = ((b ^ a) - _rotate(a, 14)) & _MASK
    return ((c ^ b) - _rotate(b, 24)) & _MASK


def lookup3(key: bytes, seed: int) -> int:
    """The 32-bit hash of ``key`` (any length; the kernel's keys are whole words of 4 bytes)."""
    a = b = c = (_START + len(key) + seed) & _MASK
    if not key:
        return c
    rest = len(key)
    offset = 0
    while rest > 12:
        k0, k1, k2 = struct.unpack_from(f"{_WORD_ORDER}3I", key, offset)
        a, b, c = _mix((a + k0) & _MASK, (b + k1) & _MASK, (c + k2) & _MASK)
        offset += 12
        rest -= 12
    # The last 1 to 12 bytes count as if zeros followed; lookup3 adds them byte by byte.
    k0, k1, k2 = struct.unpack("<3I", key[offset:].ljust(12, b"\0"))
    return _finish((a + k0) & _MASK, (b + k1) & _MASK, (c + k2) & _MASK)


def flow_key(client: IPv4Address | IPv6Address, port: int | None) -> bytes:
    """The bytes that ``jhash ip saddr . th sport`` hashes; without a port, ``jhash ip saddr``.

    In network order, the port padded to a register of 4 bytes (nft_payload.c).
    """
    return client.packed if port is None else client.packed + port.to_bytes(2, "big") + b"\0\0"


def slot_of(client: IPv4Address | IPv6Address, port: int | None, seed: int, slots: int) -> int:
    """The slot, 0 to ``slots`` - 1, that the kernel chooses (reciprocal_scale, kernel.h)."""
    return (lookup3(flow_key(client, port), seed) * slots) >> 32
