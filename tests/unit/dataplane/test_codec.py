"""Elements as the kernel's bytes: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.dataplane.nft.codec import decode_element, encode_element, encode_key
from tula.dataplane.nft.definition import key_length
from tula.dataplane.nft.ruleset import Key, Kind, Value

WRITTEN = [kind for kind in Kind if not kind.dynamic and not kind.prefixes]
NUMBERS = st.integers(0, 0xFFFFFFFF)
MACS = st.integers(0, (1 << 48) - 1)
PORTS = st.integers(0, 0xFFFF)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.", min_size=1, max_size=63)


@st.composite
def elements(draw: st.DrawFn) -> tuple[Kind, Key, Value]:
    """An element of any kind that Tula writes."""
    kind = draw(st.sampled_from(WRITTEN))
    if kind is Kind.SENT_AS:
        return kind, draw(NUMBERS), draw(MACS)
    if kind is Kind.LEARNED_AS:
        return kind, draw(MACS), draw(NUMBERS)
    if kind is Kind.HASH_CHOICE:
        return kind, draw(NUMBERS), draw(NUMBERS)
    if kind.is_set:
        return kind, draw(NUMBERS), None
    if kind in (Kind.LEARNS_CLIENT4, Kind.LEARNS_CLIENT6):
        return kind, draw(NUMBERS), draw(NAMES)
    width = 4 if kind.endswith("4") or kind.startswith("own") else 16
    address = draw(st.binary(min_size=width, max_size=width))
    if kind.counts:
        return kind, draw(NUMBERS), (address, draw(NAMES))
    if kind in (Kind.PROBE_NEXTHOP4, Kind.PROBE_NEXTHOP6):
        return kind, draw(NUMBERS), (address, "")
    if kind.numbered or "device" in kind or kind in (Kind.LARGE_DEVICE4, Kind.PROBE_BACKEND):
        return kind, draw(NUMBERS), draw(NUMBERS)
    protocol = draw(st.sampled_from([6, 17]))
    if "any" in kind or kind.startswith("forwarded"):
        return kind, (address, protocol), draw(NAMES)
    first = draw(PORTS)
    last = draw(st.integers(first, 0xFFFF)) if "range" in kind else first
    return kind, (address, protocol, first, last), draw(NAMES)


@given(elements())
def test_what_is_encoded_is_decoded(element: tuple[Kind, Key, Value]) -> None:
    kind, key, value = element
    raw = encode_element(kind, key, value)
    assert decode_element(kind, raw) == (key, value)
    assert (raw.key, raw.key_end) == encode_key(kind, key)
    # Fields of a concatenation are padded.
    assert len(raw.key) == (6 if kind is Kind.LEARNED_AS else key_length(kind))
    assert len(raw.key) % 4 == 0 or kind is Kind.LEARNED_AS


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.dynamic])
def test_what_packets_fill_is_not_written(kind: Kind) -> None:
    with pytest.raises(ValueError, match="packets fill it"):
        encode_key(kind, 1)
