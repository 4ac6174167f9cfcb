"""How many connections each backend holds: the fake and the kernel agree."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import AddMap, AddTable, DeleteTable
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.nft_reader import NftReader
from tula.kernel.nftables import KernelNftables, Nftables

COUNTED = (Kind.TCP4, Kind.TCP6, Kind.UDP4, Kind.UDP6)
OTHERS = (Kind.CLOSED4, Kind.CLOSED6, Kind.HOT_TCP4, Kind.HOT_UDP4)
MAPS = {kind: MapName(kind, 4096) for kind in (*COUNTED, *OTHERS)}
_FIELDS = {
    Kind.TCP4: 4,
    Kind.UDP4: 4,
    Kind.CLOSED4: 4,
    Kind.SAMPLE4: 4,
    Kind.HOT_TCP4: 3,
    Kind.HOT_UDP4: 3,
}


@pytest.fixture
def table(nft: Nftables) -> Iterator[Nftables]:
    nft.run((AddTable(), *map(AddMap, MAPS.values())))
    yield nft
    nft.run((DeleteTable(),))


def fill(nft: Nftables, kind: Kind, marks: list[int], life: str = "1h") -> None:
    """Puts one flow into the map for each of the marks."""
    if isinstance(nft, FakeNftables):
        start = len(nft.flows)
        for number, mark in enumerate(marks, start):
            nft.flows[str(MAPS[kind]), number.to_bytes(16, "big")] = mark
        return
    fields = _FIELDS.get(kind, 2)
    texts = [
        f"{' . '.join([hex(number)] * fields)} timeout {life} : {mark}"
        for number, mark in enumerate(marks, 1)
    ]
    text = f"add element netdev tula {MAPS[kind]} {{ {', '.join(texts)} }}"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@contextmanager
def mapped(maps: dict[Kind, MapName]) -> Iterator[None]:
    """Other maps for ``fill``."""
    before = dict(MAPS)
    MAPS.update(maps)
    try:
        yield
    finally:
        MAPS.clear()
        MAPS.update(before)


def held(nft: Nftables) -> dict[int, int]:
    """Each of them counted."""
    found = nft.connections(10)
    assert found is not None
    assert not found.estimated
    return found.counts


def test_nothing_is_held_at_first(nft: Nftables) -> None:
    assert held(nft) == {}


def test_open_connections_are_counted_by_backend(table: Nftables) -> None:
    assert held(table) == {}
    for kind in COUNTED:
        fill(table, kind, [1, 2, 2, 0x01020304])
    assert held(table) == {1: 4, 2: 8, 0x01020304: 4}


def test_those_that_close_and_those_told_twice_are_not(table: Nftables) -> None:
    fill(table, Kind.TCP4, [1])
    for kind in OTHERS:
        fill(table, kind, [1, 2])
    assert held(table) == {1: 1}


def test_many_take_several_answers(table: Nftables) -> None:
    fill(table, Kind.TCP4, [number % 7 for number in range(4000)])
    fill(table, Kind.UDP6, [number % 7 for number in range(4000)])
    assert held(table) == {mark: 2 * len(range(mark, 4000, 7)) for mark in range(7)}


def test_it_gives_up_in_time(table: Nftables) -> None:
    fill(table, Kind.TCP4, [number % 7 for number in range(4000)])
    assert table.connections(0) is None
    assert table.connections(10) is not None


@pytest.mark.parametrize("nft", [pytest.param("kernel", marks=pytest.mark.kernel)], indirect=True)
def test_what_is_past_its_time_does_not_count(table: Nftables) -> None:
    assert isinstance(table, KernelNftables)
    fill(table, Kind.TCP4, [1, 1, 1], "200ms")
    fill(table, Kind.UDP4, [2])
    # The kernel collects what is old once a second at most: until then it is there, and dead.
    time.sleep(0.3)
    assert held(table) == {2: 1}


@pytest.mark.parametrize("nft", [pytest.param("kernel", marks=pytest.mark.kernel)], indirect=True)
def test_elements_of_different_lengths_are_told_apart(table: Nftables) -> None:
    """Such as one without a timeout, and one with a comment, which only an operator can add."""
    elements = '1 . 1 : 5, 2 . 2 timeout 1h : 6, 3 . 3 timeout 1h comment "x" : 7, 4 . 4 : 7'
    text = f"add element netdev tula {MAPS[Kind.TCP6]} {{ {elements} }}"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    assert held(table) == {5: 1, 6: 1, 7: 2}


@pytest.mark.parametrize("nft", [pytest.param("kernel", marks=pytest.mark.kernel)], indirect=True)
def test_reading_agrees_with_a_look_at_every_element(table: Nftables) -> None:
    fill(table, Kind.TCP4, [number % 5 for number in range(2000)])
    with NftReader() as reader:
        slow = [raw.data for raw in reader.elements("tula", str(MAPS[Kind.TCP4]))]
    counts = held(table)
    assert sum(counts.values()) == len(slow) == 2000


@pytest.mark.parametrize("nft", [pytest.param("kernel", marks=pytest.mark.kernel)], indirect=True)
def test_a_sample_stands_for_more_than_can_be_counted(nft: Nftables) -> None:
    large, sample = MapName(Kind.TCP4, 1 << 20), MapName(Kind.SAMPLE4, 1 << 17)
    nft.run((AddTable(), AddMap(large), AddMap(sample)))
    with mapped({Kind.TCP4: large, Kind.SAMPLE4: sample}):
        fill(nft, Kind.TCP4, [1] * 50 + [2, 3])
        assert held(nft) == {1: 50, 2: 1, 3: 1}, "few are counted one by one"
        fill(nft, Kind.SAMPLE4, [1] * 1600 + [2] * 20)
        found = nft.connections(10, {2, 3, 4})
        assert found is not None
        assert found.estimated
        assert found.counts == {1: 1600 * 32, 2: 20 * 32}, "one in 32"
        assert found.empty == {4}, "one flow of 3 is not of the sample, and is found all the same"
    nft.run((DeleteTable(),))
