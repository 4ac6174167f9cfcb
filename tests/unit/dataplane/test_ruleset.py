"""Names, elements and rules: what is written is what is read."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.dataplane.nft.build import ingress_chain
from tula.dataplane.nft.codec import RawElement, decode_element, element_text, key_text
from tula.dataplane.nft.ruleset import Kind, MapName, Rule, pick_size
from tula.model.stats import Count

V4 = bytes([10, 0, 0, 100])
V6 = bytes.fromhex("20010db8000000000000000000000100")


@given(st.sampled_from(list(Kind)), st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_a_map_name_tells_its_parts(kind: Kind, size: int, number: int) -> None:
    name = MapName(kind, size + 1, number + 1) if kind.numbered else MapName(kind, size)
    if kind.labelled:
        name = MapName(kind, size + 1, label=f"vip.10.0.0.{number}.24")
    if kind.prefixes:
        name = MapName(kind, 0, number + 1)
    assert MapName.parse(str(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "slots", "slots_1", "slots_a_b", "slots_01_7", "nexthop4_1_2", "via5_1024", "x", "_"),
        *(
            "clients4_1024",
            "clients4.service.web.32",
            "clients4.service.web.32_1_1024",
            "slots.a_7",
        ),
    ],
)
def test_other_names_are_none_of_ours(name: str) -> None:
    parsed = MapName.parse(name)
    assert parsed is None


@pytest.mark.parametrize(
    ("kind", "raw", "key", "value"),
    [
        (Kind.SLOTS, RawElement((7).to_bytes(4, sys.byteorder), b"\x02\0\0\0"), 7, 2),
        (
            Kind.NEXTHOP4,
            RawElement((65537).to_bytes(4, sys.byteorder), V4, comment="web"),
            65537,
            (V4, "web"),
        ),
        (
            Kind.SERVICE_PORT4,
            RawElement(V4 + b"\x06\0\0\0" + b"\0\x50\0\0", "service4.web"),
            (V4, 6, 80, 80),
            "service4.web",
        ),
        (
            Kind.SERVICE_RANGE6,
            RawElement(
                V6 + b"\x11\0\0\0" + b"\x1f\x40\0\0",
                "service6.web",
                key_end=V6 + b"\x11\0\0\0" + b"\x1f\x4a\0\0",
            ),
            (V6, 17, 8000, 8010),
            "service6.web",
        ),
        (
            Kind.SERVICE_ANY6,
            RawElement(V6 + b"\x11\0\0\0", "service6.web"),
            (V6, 17),
            "service6.web",
        ),
    ],
)
def test_the_kernels_bytes_are_understood(
    kind: Kind, raw: RawElement, key: object, value: object
) -> None:
    assert decode_element(kind, raw) == (key, value)


def test_a_verdict_where_a_value_belongs_is_an_error() -> None:
    with pytest.raises(ValueError, match="value was expected"):
        decode_element(Kind.SLOTS, RawElement(b"\0\0\0\0", "service4.web"))
    for data in (b"\0", ""):  # "" is drop, jump, whatever is not goto
        with pytest.raises(ValueError, match="a chain to go to was expected"):
            decode_element(Kind.SERVICE_ANY4, RawElement(V4 + b"\x06\0\0\0", data))


@pytest.mark.parametrize("kind", [kind for kind in Kind if not kind.dynamic])
def test_a_key_of_another_length_is_an_error(kind: Kind) -> None:
    for key in (b"", b"\0\0"):  # the key of "*" is empty
        with pytest.raises(ValueError, match="no key of Tula's"):
            decode_element(kind, RawElement(key, "service4.web"))


def test_elements_as_text() -> None:
    assert element_text(Kind.SLOTS, 7, 2) == "7 : 2"
    assert element_text(Kind.NEXTHOP4, 0x10001, (V4, "web")) == '0x10001 comment "web" : 10.0.0.100'
    counted = element_text(Kind.NEXTHOP4, 0x10001, (V4, "web"), Count(5, 600))
    assert counted == '0x10001 counter packets 5 bytes 600 comment "web" : 10.0.0.100'
    assert element_text(Kind.SERVICE_PORT4, (V4, 6, 80, 80), "service4.web") == (
        "10.0.0.100 . 6 . 80 : goto service4.web"
    )
    assert key_text(Kind.SERVICE_RANGE6, (V6, 17, 1, 9)) == "2001:db8::100 . 17 . 1-9"


def test_a_rule_is_known_by_what_it_means() -> None:
    assert Rule.of("drop") == Rule.of("drop")
    assert Rule.of("drop") != Rule.of("accept")
    # The same letters mean another device once the interface was made anew.
    assert Rule.of('fwd to "eth0"', pinned="2") != Rule.of('fwd to "eth0"', pinned="7")


def test_a_map_that_fits_is_kept_and_a_new_one_has_room_to_grow() -> None:
    assert pick_size(Kind.NEXTHOP4, 10, []) == MapName(Kind.NEXTHOP4, 1024)
    assert pick_size(Kind.NEXTHOP4, 600, ["nexthop4_1024", "nexthop6_4096"]) == MapName(
        Kind.NEXTHOP4, 1024
    )
    assert pick_size(Kind.NEXTHOP4, 1025, ["nexthop4_1024"]) == MapName(Kind.NEXTHOP4, 4096)


@pytest.mark.parametrize("interface", ["eth0", "eth0.10", "br-lan", "wan:1", "a b", "é"])
def test_every_interface_has_a_chain_name_that_nft_can_write(interface: str) -> None:
    name = ingress_chain(interface)
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    assert ingress_chain(interface + "x") != name
