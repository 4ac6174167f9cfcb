"""The keys of the flow tables, computed; against the kernel they are proven by trace's tests."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from tula.dataplane.nft.flow_keys import (
    flow_key,
    flow_tables,
    fragment_key,
    fragment_tables,
)
from tula.model.config import Protocol
from tula.model.flow import Flow

PRESENT = ["nexthop4_1024", "tcp4_64", "closed4_64", "udp4_64", "tcp6_64", "closed6_64", "frag4_9"]


def flow(version: int, protocol: Protocol = Protocol.TCP, port: int = 0x1234) -> Flow:
    client, vip = ("192.0.2.1", "198.51.100.2") if version == 4 else ("2001:db8::1", "2001:db8::2")
    return Flow(ip_address(client), port, ip_address(vip), 80, protocol)


def test_an_ipv4_key_is_its_fields_in_registers_of_4_bytes() -> None:
    assert flow_key(flow(4)).hex(" ", 4) == "c0000201 12340000 c6336402 00500000"


def test_an_ipv6_key_is_two_hashes_and_tells_flows_apart() -> None:
    keys = {flow_key(flow(6, port=port)) for port in range(1000, 2000)}
    assert {len(key) for key in keys} == {8}
    assert len(keys) == 1000
    assert all(key[:4] != key[4:] for key in keys)


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_the_protocol_is_the_tables_not_the_keys(one: int, other: int) -> None:
    for version in (4, 6):
        tcp, udp = flow_key(flow(version, port=one)), flow_key(flow(version, Protocol.UDP, other))
        assert (tcp == udp) == (one == other)


def test_the_tables_of_a_flow_in_the_order_of_look_ups() -> None:
    assert [str(name) for name in flow_tables(flow(4), PRESENT)] == ["tcp4_64", "closed4_64"]
    assert [str(name) for name in flow_tables(flow(4, Protocol.UDP), PRESENT)] == ["udp4_64"]
    assert [str(name) for name in flow_tables(flow(6), PRESENT)] == ["tcp6_64", "closed6_64"]
    assert flow_tables(flow(6, Protocol.UDP), PRESENT) == []
    assert flow_tables(flow(4), ["mine", "tcp4_x"]) == []


def test_a_datagrams_fragments() -> None:
    assert [str(name) for name in fragment_tables(flow(4), PRESENT)] == ["frag4_9"]
    assert fragment_tables(flow(6), PRESENT) == []
    key = fragment_key(flow(4, Protocol.UDP), 0xABCD)
    assert key.hex(" ", 4) == "c0000201 c6336402 abcd0000 11000000"
    keys = {fragment_key(flow(6), datagram) for datagram in range(100)}
    assert {len(each) for each in keys} == {4}
    assert len(keys) == 100
