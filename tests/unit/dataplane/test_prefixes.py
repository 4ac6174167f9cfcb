"""Sets of prefixes: what is written is what is read."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tula.dataplane.nft.client_admission import refuses_more
from tula.dataplane.nft.codec import key_text
from tula.dataplane.nft.ruleset import Chain, Elements, Kind, Rule, Ruleset
from tula.kernel.nft_prefixes import prefix_elements, read_prefixes
from tula.model.prefixes import PrefixList

NETWORKS = st.lists(
    st.one_of(
        st.builds(
            lambda host, length: ip_network((host, length), strict=False),
            st.integers(0, (1 << 32) - 1),
            st.integers(0, 32),
        ),
        st.builds(
            lambda host, length: ip_network((host.to_bytes(16, "big"), length), strict=False),
            st.integers(0, (1 << 128) - 1),
            st.integers(0, 128),
        ),
    ),
    max_size=20,
)


@given(NETWORKS, st.integers(0, (1 << 32) - 1))
def test_a_list_finds_what_its_networks_contain(networks: list[object], number: int) -> None:
    found = PrefixList.of(networks)  # type: ignore[arg-type]
    nets = [ip_network(str(network)) for network in networks]
    tried = [ip_address(number), *(net.network_address for net in nets)]
    tried += [net.broadcast_address for net in nets]
    for address in tried:
        containing = [net for net in nets if address.version == net.version and address in net]
        prefix = found.find(address)
        assert (prefix is not None) is bool(containing)
        if prefix is not None:
            assert prefix == min(containing, key=lambda net: net.prefixlen)
    assert PrefixList.of(found) == found


@given(NETWORKS)
def test_what_is_written_is_read(networks: list[object]) -> None:
    found = PrefixList.of(networks)  # type: ignore[arg-type]
    for kind, keys in ((Kind.DENY4, found.v4), (Kind.DENY6, found.v6)):
        answers = [{3: memoryview(as_listed(element))} for element in prefix_elements(kind, keys)]
        assert read_prefixes(kind, answers) == (dict.fromkeys(keys), True)


def as_listed(element: bytes) -> bytes:
    """The kernel's own form: types of attributes without the flag of nesting."""
    return element[:3] + b"\0" + element[4:7] + b"\0" + element[8:]


def test_what_is_no_prefix_is_somebody_elses() -> None:
    keys = PrefixList.of([ip_network("10.0.0.0/8")]).v4
    listed = b"".join(map(as_listed, prefix_elements(Kind.DENY4, keys)))
    assert read_prefixes(Kind.DENY4, [{3: memoryview(listed)}])[1]
    half = listed.replace(bytes([11, 0, 0, 0]), bytes([10, 200, 0, 0]))
    assert read_prefixes(Kind.DENY4, [{3: memoryview(half)}]) == ({}, False)
    assert not read_prefixes(Kind.DENY4, [{3: memoryview(listed + b"\0\0\0\0")}])[1]


def test_nft_is_given_ranges() -> None:
    v4 = PrefixList.of([ip_network("10.0.0.0/8"), ip_network("192.0.2.7")]).v4
    assert [key_text(Kind.ALLOW4, key) for key in v4] == ["0xa000000-0xaffffff", "0xc0000207"]


def test_only_what_refuses_more_ends_hot_flows() -> None:
    few: Elements = dict.fromkeys(PrefixList.of([ip_network("10.0.0.0/8")]).v4)
    more: Elements = dict.fromkeys(
        PrefixList.of([ip_network("10.0.0.0/8"), ip_network("192.0.2.7")]).v4
    )
    for name, tighter, looser in (("deny4_1", more, few), ("allow4_1", few, more)):
        assert refuses_more(Ruleset({name: looser}), Ruleset({name: tighter}))
        assert not refuses_more(Ruleset({name: tighter}), Ruleset({name: looser}))
    rule = Rule.of("@nh,96,32 @deny4_1 counter name denied.web drop")
    free, listed = {"service4.web": Chain()}, {"service4.web": Chain((rule,))}
    assert refuses_more(Ruleset(chains=free), Ruleset(chains=listed))
    assert not refuses_more(Ruleset(chains=listed), Ruleset(chains=free))
    assert not refuses_more(Ruleset(), Ruleset(chains=listed)), "a new service has no flows"
