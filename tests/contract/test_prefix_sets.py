"""Sets of prefixes as the kernel keeps them, through many changes by netlink and by nft.

Kernels have refused to add, in one transaction, what is next to something deleted in it, or have
listed it wrong (nft_set_rbtree.c): lists change by elements, so that must hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.ruleset import Chain, Kind, MapName, Rule, Ruleset
from tula.dataplane.nft.schema import schema_counter
from tula.dataplane.nft.transaction import AddCounter
from tula.kernel.nftables import KernelNftables
from tula.lab import Lab
from tula.model.prefixes import PrefixList

pytestmark = pytest.mark.kernel

ROUNDS = 40
DENY4, DENY6 = MapName(Kind.DENY4, 0, 1), MapName(Kind.DENY6, 0, 1)


@pytest.fixture
def nft() -> Iterator[KernelNftables]:
    with Lab() as lab:
        host = lab.host("lb")
        with host.enter():
            yield KernelNftables()


def drawn(chance: random.Random, bits: int) -> list[int]:
    """Prefixes at the first and the last addresses of all, so that many touch."""
    found = []
    for _ in range(chance.randrange(40)):
        free = chance.randrange(7)
        first = chance.getrandbits(7) >> free << free
        if chance.random() < 0.5:
            first = (1 << bits) - 128 + first
        found.append(first << 8 | bits - free)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_every_change_leaves_what_is_wanted(nft: KernelNftables, seed: int) -> None:
    chance = random.Random(seed)
    rules = [f"@nh,96,32 @{DENY4}", f"@th,192,32 @{DENY4}", f"@nh,64,128 @{DENY6}"]
    chains = {"c": Chain(tuple(Rule.of(f"{rule} drop") for rule in rules))}
    have: Ruleset | None = None
    held = PrefixList()
    for number in range(ROUNDS):
        kept4, kept6 = held.v4[chance.randrange(3) :], held.v6[chance.randrange(3) :]
        if chance.random() < 0.3:
            kept4, kept6 = (), ()
        held = PrefixList.of_keys((*kept4, *drawn(chance, 32)), (*kept6, *drawn(chance, 128)))
        maps = {str(DENY4): dict.fromkeys(held.v4), str(DENY6): dict.fromkeys(held.v6)}
        want = Ruleset(maps, chains, frozenset({schema_counter()}))
        change = diff_rulesets(have, want)
        if chance.random() < 0.3:  # a step that only nft can make
            change = (*change, AddCounter(f"by_nft_{number}"))
        nft.run(change)
        found = nft.observe()
        assert found is not None
        assert found.maps == maps, f"round {number}"
        assert not found.foreign
        have = want
