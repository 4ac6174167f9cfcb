"""The table that keeps services from the own stack, as the kernel holds it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from tula.dataplane.nft.own_stack import GUARD_TABLE, Guarded
from tula.dataplane.nft.ruleset import Elements, Kind
from tula.kernel.nft_guard import KernelGuard
from tula.kernel.nft_reader import NftReader
from tula.kernel.nftables import KernelNftables
from tula.lab import Host, Lab
from tula.model.errors import KernelError, StaleError

pytestmark = pytest.mark.kernel

V4, V6 = ip_address("10.0.0.100").packed, ip_address("2001:db8::100").packed
FIRST: dict[Kind, Elements] = {
    Kind.SERVICE_PORT4: {(V4, 6, 80, 80): "service4.web", (V4, 17, 53, 53): "service4.dns"},
    Kind.SERVICE_RANGE6: {(V6, 6, 8000, 8010): "service6.web"},
    Kind.SERVICE_ANY6: {(V6, 17): "service6.web"},
}
SECOND: dict[Kind, Elements] = {
    Kind.SERVICE_PORT4: {(V4, 6, 80, 80): "service4.web", (V4, 6, 443, 443): "service4.web"},
    Kind.SERVICE_RANGE6: {(V6, 6, 8000, 8020): "service6.web"},
}
INET = 1


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Lab() as lab:
        yield lab.host("lb", lab.switch(), "10.0.0.2/24")


def held(host: Host) -> dict[str, Any]:
    """The keys in the table's sets, and the counter's name."""
    with NftReader(INET) as reader:
        sets = {
            name: sorted((raw.key, raw.key_end) for raw in reader.elements(GUARD_TABLE, name))
            for name in reader.maps(GUARD_TABLE)
        }
    listed = host.run(["nft", "list", "table", "inet", GUARD_TABLE]).stdout
    assert listed.count("drop") == 6
    return {name: keys for name, keys in sets.items() if keys}


def test_it_holds_what_it_is_brought_to_and_nobody_else_changes_it(host: Host) -> None:
    with host.enter():
        guard = KernelGuard()
        assert guard.held is None
        assert guard.bring(Guarded(FIRST, frozenset({2})), 0)
        first = held(host)
        assert {name: len(keys) for name, keys in first.items()} == {
            "listed": 1, "service_port4": 2, "service_range6": 1, "service_any6": 1,
        }  # fmt: skip
        assert not guard.bring(Guarded(dict(FIRST), frozenset({2})), 0), "the same maps"
        host.run(["nft", "flush", "ruleset"])
        assert held(host) == first
        with pytest.raises(KernelError, match="not permitted"):
            KernelGuard().bring(Guarded(SECOND), 0)
        assert guard.bring(Guarded(SECOND, frozenset({3})), 0)
        assert {name: len(keys) for name, keys in held(host).items()} == {
            "listed": 1, "service_port4": 2, "service_range6": 1,
        }  # fmt: skip
        guard.close()


def test_a_stale_generation_changes_nothing(host: Host) -> None:
    with host.enter():
        guard, generation = KernelGuard(), KernelNftables().generation()
        assert guard.bring(Guarded(FIRST), generation)
        before = held(host)
        assert KernelNftables().generation() == generation + 1
        with pytest.raises(StaleError):
            guard.bring(Guarded(SECOND), generation)
        assert held(host) == before
        assert guard.bring(Guarded(SECOND), generation + 1)
        guard.close()


def test_ten_thousand_services(host: Host) -> None:
    many: Elements = {((0x0A000000 + n).to_bytes(4, "big"), 6, 80, 80): "" for n in range(10_000)}
    with host.enter():
        guard = KernelGuard()
        assert guard.bring(Guarded({Kind.SERVICE_PORT4: many}), 0)
        assert len(held(host)["service_port4"]) == 10_000
        assert guard.bring(Guarded(), 0)
        assert held(host) == {}
        guard.close()
