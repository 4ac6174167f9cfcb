"""Changes of elements alone, which go by another way than the rest: fake and kernel agree."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import (
    AddChain,
    AddElements,
    AddMap,
    AddTable,
    DeleteElements,
    FlushMap,
    Step,
    Transaction,
    render_transaction,
)
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.nft_reader import NftReader
from tula.kernel.nft_writer import fits_batch
from tula.kernel.nftables import KernelNftables, Nftables
from tula.lab import Lab
from tula.model.errors import KernelError, StaleError
from tula.model.stats import Count

V4, OTHER4 = bytes([10, 0, 0, 9]), bytes([10, 0, 0, 10])
V6 = bytes.fromhex("20010db8000000000000000000000009")
VIA, OPEN = MapName(Kind.NEXTHOP4, 4), MapName(Kind.ACCEPTS_NEW_FLOWS, 4)
SLOTS = MapName(Kind.SLOTS, 65537, 1)
EXACT = MapName(Kind.SERVICE_PORT4, 4)
FLOWS = MapName(Kind.TCP4, 1024)

NUMBERS: tuple[Step, ...] = tuple(
    AddElements(name, {1: 2, 0x01020304: 0x0A0B0C0D})
    for name in (
        MapName(Kind.WRR, 7, 3),
        MapName(Kind.DEVICE4, 8),
        MapName(Kind.DEVICE6, 8),
        MapName(Kind.LARGE_DEVICE4, 8),
        MapName(Kind.HASH_CHOICE, 8),
    )
)
DISPATCH: tuple[Step, ...] = tuple(
    AddElements(MapName(kind, size), {(address, 6, *ports): "service4.web"})
    for kinds, size, ports in (
        (
            (
                Kind.SERVICE_PORT4,
                Kind.SERVICE_PORT6,
                Kind.ICMP_SERVICE_PORT4,
                Kind.ICMP_SERVICE_PORT6,
            ),
            8,
            (80, 80),
        ),
        (
            (
                Kind.SERVICE_RANGE4,
                Kind.SERVICE_RANGE6,
                Kind.ICMP_SERVICE_RANGE4,
                Kind.ICMP_SERVICE_RANGE6,
            ),
            0,
            (80, 8080),
        ),
        (
            (Kind.SERVICE_ANY4, Kind.SERVICE_ANY6, Kind.ICMP_SERVICE_ANY4, Kind.ICMP_SERVICE_ANY6),
            8,
            (),
        ),
    )
    for kind in kinds
    for address in ((V4 if kind.endswith("4") else V6),)
)
EVERY_KIND: tuple[Step, ...] = (
    AddElements(SLOTS, {slot: slot % 7 << 16 for slot in range(65537)}),
    AddElements(VIA, {1: (V4, "web"), 2: (V4, f"{'n' * 63} 192.168.100.200")}),
    AddElements(MapName(Kind.NEXTHOP6, 4), {1: (V6, "web")}),
    AddElements(OPEN, {1: None, 0xFFFFFFFF: None}),
    AddElements(MapName(Kind.HAS_LARGE_DEVICE4, 4), {3: None}),
    AddElements(MapName(Kind.AS_HASHED, 4), {0x01020304: None}),
    AddElements(MapName(Kind.SENT_AS, 4), {0x01020304: 0x0201_0A0B_0C0D, 1: 2}),
    AddElements(MapName(Kind.LEARNED_AS, 4), {0x0201_0A0B_0C0D: 0x01020304, 2: 1}),
    *NUMBERS,
    *DISPATCH,
)


def maps_of(transaction: Transaction) -> Transaction:
    """A table with the maps, and the chain, that these steps name."""
    names = [step.name for step in transaction if isinstance(step, AddElements)]
    return (AddTable(), AddChain("service4.web"), *map(AddMap, names), AddMap(FLOWS))


def listed() -> str:
    """The table as nft shows it, which must know what it shows."""
    command = ["nft", "list", "table", "netdev", "tula"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def raw_elements(transaction: Transaction) -> list[object]:
    with NftReader() as reader:
        return [
            sorted(reader.elements("tula", str(step.name)), key=lambda raw: raw.key)
            for step in transaction
            if isinstance(step, AddElements)
        ]


def test_every_kind_of_element_comes_and_goes(nft: Nftables) -> None:
    assert fits_batch(EVERY_KIND)
    nft.run(maps_of(EVERY_KIND))
    empty = nft.observe()
    assert empty is not None
    nft.run(EVERY_KIND)
    added = nft.observe()
    assert added is not None
    steps = [step for step in EVERY_KIND if isinstance(step, AddElements)]
    assert {name: held for name, held in added.maps.items() if held} == {
        str(step.name): step.elements for step in steps
    }
    assert nft.counts()[str(VIA)] == {1: Count(), 2: Count()}
    assert nft.counts_of(VIA, [2, 1]) == {1: Count(), 2: Count()}
    assert nft.counts_of(VIA, [1, 77, 2]) == {1: Count()}, "up to the first that is not there"
    assert nft.counts_of(VIA, []) == {}
    deletions = tuple(DeleteElements(step.name, tuple(step.elements)) for step in steps)
    assert fits_batch(deletions)
    nft.run(deletions)
    assert nft.observe() == empty
    nft.run(EVERY_KIND)
    nft.run(tuple(FlushMap(step.name) for step in steps))
    assert nft.observe() == empty


@pytest.mark.kernel
def test_nft_would_have_made_the_same() -> None:
    """Through the reader, through nft's own eyes, and by the bytes of each element."""
    seen = []
    with Lab() as lab, lab.host("lb").enter():
        kernel = KernelNftables()
        ways: list[Callable[[Transaction], object]] = [
            kernel.run,
            lambda transaction: subprocess.run(
                ["nft", "-f", "-"], input=render_transaction(transaction), text=True, check=True
            ),
        ]
        for way in ways:
            kernel.run(maps_of(EVERY_KIND))
            way(EVERY_KIND)
            whole = (kernel.observe(), kernel.counts(), listed(), raw_elements(EVERY_KIND))
            way((DeleteElements(VIA, (1,)), AddElements(VIA, {1: (OTHER4, "web")})))
            way((DeleteElements(SLOTS, (7, 8)), AddElements(SLOTS, {8: 1}), FlushMap(FLOWS)))
            seen.append((whole, kernel.observe(), listed(), raw_elements(EVERY_KIND)))
            subprocess.run(["nft", "delete", "table", "netdev", "tula"], check=True)
    assert seen[0] == seen[1]


BASE: tuple[Step, ...] = (
    AddTable(),
    AddChain("service4.web"),
    *map(AddMap, (VIA, OPEN, EXACT, FLOWS)),
    AddElements(VIA, {1: (V4, "web"), 2: (V4, "web")}),
    AddElements(OPEN, {1: None, 2: None}),
)
GONE = MapName(Kind.NEXTHOP4, 9999)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (DeleteElements(VIA, (7,)), "nexthop4_4.*No such file or directory"),
        (AddElements(VIA, {1: (OTHER4, "web")}), "nexthop4_4.*File exists"),
        (
            AddElements(VIA, dict.fromkeys(range(4, 9), (V4, "web"))),
            "nexthop4_4.*Too many open files",
        ),
        (AddElements(GONE, {1: (V4, "web")}), "nexthop4_9999.*No such file or directory"),
        (DeleteElements(GONE, (1,)), "nexthop4_9999.*No such file or directory"),
        (FlushMap(GONE), "nexthop4_9999.*No such file or directory"),
        (AddElements(EXACT, {(V4, 6, 80, 80): "gone"}), "No such file or directory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refused_element_leaves_all_as_it_was(nft: Nftables, step: Step, says: str) -> None:
    nft.run(BASE)
    before, generation = nft.observe(), nft.generation()
    with pytest.raises(KernelError, match=says):
        nft.run((DeleteElements(OPEN, (1,)), AddElements(VIA, {3: (V4, "api")}), step))
    assert (nft.observe(), nft.generation()) == (before, generation)


def test_what_is_there_already_may_be_added(nft: Nftables) -> None:
    nft.run(BASE)
    before = nft.observe()
    nft.run((AddElements(VIA, {1: (V4, "web")}), AddElements(OPEN, {1: None})))
    assert nft.observe() == before


def test_without_a_table_no_element(nft: Nftables) -> None:
    for step in (AddElements(OPEN, {1: None}), DeleteElements(OPEN, (1,)), FlushMap(OPEN)):
        with pytest.raises(KernelError):
            nft.run((step,))


def test_every_change_is_one_generation_further(nft: Nftables) -> None:
    at = nft.generation()
    for transaction in (BASE, (DeleteElements(OPEN, (1,)),), (AddChain("other"),)):
        nft.run(transaction, at)
        at += 1
        assert nft.generation() == at
    nft.run((), at)
    assert nft.generation() == at


@pytest.mark.parametrize(
    "transaction", [(DeleteElements(OPEN, (1,)),), (AddChain("other"),)], ids=["elements", "rules"]
)
def test_a_change_for_another_generation_is_not_made(
    nft: Nftables, transaction: Transaction
) -> None:
    nft.run(BASE)
    before = nft.generation()
    if isinstance(nft, FakeNftables):
        nft.commits += 1
    else:
        subprocess.run(["nft", "add", "table", "inet", "someone"], check=True)
    assert nft.generation() > before
    seen = nft.observe()
    with pytest.raises(StaleError):
        nft.run(transaction, before)
    assert nft.observe() == seen
    nft.run(transaction, nft.generation())
    assert nft.observe() != seen


@pytest.mark.kernel
def test_the_elements_of_a_map_that_is_gone_are_an_error() -> None:
    """And not an empty map: it may go between the reading of its name and of its elements."""
    with Lab() as lab, lab.host("lb").enter(), NftReader() as reader:
        KernelNftables().run((AddTable(),))
        with pytest.raises(FileNotFoundError):
            list(reader.elements("tula", str(VIA)))
        assert reader.has_table("tula"), "the socket goes on"
