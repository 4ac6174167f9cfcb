"""Sets of prefixes as netlink has them.

To the kernel each prefix is two elements: its first address and, flagged as an end, the one behind
its last (nft_set_rbtree.c).

A hundred thousand are read in half a second and written in a third of that, so both are done in
bulk.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

from tula.dataplane.nft.ruleset import Key, Kind
from tula.kernel.netlink import Attributes, attribute, nested
from tula.model.prefixes import LENGTH_BITS, ends

_INTERVAL_END = attribute(3, struct.pack(">I", 1))
"""NFTA_SET_ELEM_FLAGS with NFT_SET_ELEM_INTERVAL_END."""
_OPEN = attribute(6, struct.pack("=BBI", 1, 4, 1))
"""NFTA_SET_ELEM_USERDATA by which nft remembers a prefix behind which there are no addresses
(NFTNL_UDATA_SET_ELEM_FLAGS, SET_ELEM_F_INTERVAL_OPEN)."""


def prefix_elements(kind: Kind, keys: Iterable[Key]) -> Iterator[bytes]:
    """The elements of some prefixes, for a list of them."""
    version = 4 if kind.endswith("4") else 6
    width, above = (4, 1 << 32) if version == 4 else (16, 1 << 128)
    for key in keys:
        assert isinstance(key, int)
        first, last = ends(key, version)
        yield _element(first.to_bytes(width, "big"), b"")
        if last + 1 < above:  # behind the last address of all there is none
            yield _element((last + 1).to_bytes(width, "big"), _INTERVAL_END)


def _element(key: bytes, flags: bytes) -> bytes:
    return nested(1, nested(1, attribute(1, key)) + flags)


def read_prefixes(kind: Kind, answers: Iterable[Attributes]) -> tuple[dict[Key, None], bool]:
    """The prefixes that a dump's answers hold, and whether those are all that is in the set.

    What is no prefix, or has a comment, a timeout or the like, is somebody else's.
    """
    width = 4 if kind.endswith("4") else 16
    pattern = _pattern(width)
    starts, stops = list[bytes](), list[bytes]()
    whole = True
    for answer in answers:
        elements = answer.get(3)
        if elements is None:
            continue
        size = 0
        for start, stop, last in pattern.findall(elements):
            size += width + 12
            if start:
                starts.append(start)
            elif stop:
                stops.append(stop)
                size += len(_INTERVAL_END)
            else:
                starts.append(last)
                size += len(_OPEN)
        whole = whole and size == len(elements)
    return _paired(starts, stops, width * 8, whole)


def _paired(
    starts: list[bytes], stops: list[bytes], bits: int, whole: bool
) -> tuple[dict[Key, None], bool]:
    starts.sort()
    # nft itself puts an end at 0 into a set that is empty.
    ordered = sorted(int.from_bytes(stop, "big") for stop in stops if stop.strip(b"\0"))
    if len(ordered) < len(starts):
        ordered.append(1 << bits)
    found: dict[Key, None] = {}
    if len(ordered) != len(starts):
        return found, False
    for start, behind in zip(starts, ordered, strict=True):
        first = int.from_bytes(start, "big")
        size = behind - first
        if size <= 0 or size & (size - 1) or first & (size - 1):
            whole = False
        else:
            found[first << LENGTH_BITS | bits + 1 - size.bit_length()] = None
    return found, whole


@lru_cache
def _pattern(width: int) -> re.Pattern[bytes]:
    """An element, as the kernel lists it (nf_tables_fill_setelem): without flags of nesting."""

    def element(more: bytes) -> bytes:
        head = struct.pack("=6H", width + 12 + len(more), 1, width + 8, 1, width + 4, 1)
        return re.escape(head) + b"(.{%d})" % width + re.escape(more)

    forms = (element(b""), element(_INTERVAL_END), element(_OPEN))
    return re.compile(b"|".join(forms), re.DOTALL)
