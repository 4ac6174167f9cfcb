"""The hash, against the vectors that Bob Jenkins publishes with lookup3 (driver5 of lookup3.c).

Against the kernel it is proven by packets, in tests/packets/test_trace.py.
"""

from ipaddress import ip_address

import pytest

from tula.dataplane.nft.lookup3 import flow_key, lookup3, slot_of

FOUR_SCORE = b"Four score and seven years ago"


@pytest.mark.parametrize(
    ("key", "seed", "value"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (FOUR_SCORE, 0, 0x17770551),
        (FOUR_SCORE, 1, 0xCD628161),
    ],
)
def test_published_vectors(key: bytes, seed: int, value: int) -> None:
    assert lookup3(key, seed) == value


def test_a_port_is_padded_to_a_register() -> None:
    assert flow_key(ip_address("10.0.0.1"), 80) == bytes([10, 0, 0, 1, 0, 80, 0, 0])
    assert flow_key(ip_address("10.0.0.1"), None) == bytes([10, 0, 0, 1])
    assert len(flow_key(ip_address("2001:db8::1"), 80)) == 20


def test_slots_are_all_reached_and_never_passed() -> None:
    client = ip_address("10.0.0.1")
    slots = {slot_of(client, port, seed=7, slots=251) for port in range(1, 10000)}
    assert slots == set(range(251))
