"""Maglev hashing with weights.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
section 3.4: every backend walks the table's slots in an order of its own and the backends take
turns in claiming the next slot that is still free. When a backend leaves, the others keep
nearly all of their slots. Weights decide how often a backend's turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd

# Few sizes, far apart: a change of size moves nearly every flow, so a service should grow far
# before it meets one. About 1,000 slots a backend keep needless moves at 1 % or less.
_SIZES = ((4, 4093), (12, 16381))
LARGEST = 65537

# Turns are ordered by turn / weight, in integers of this scale so that every machine orders
# them alike. Two different times of 65,537 turns and 16-bit weights differ by more than 2**-33.
_SCALE = 1 << 40


def table_size(backends: int) -> int:
    """Slots (a prime) for a service that lists so many backends, those of weight 0 included."""
    return next((slots for most, slots in _SIZES if backends <= most), LARGEST)


def _walk(key: str, slots: int) -> tuple[int, int]:
    """Where a backend's walk starts, and the factor (not 0) that stretches it."""
    digest = blake2b(key.encode(), digest_size=16, person=b"tula maglev").digest()
    start = int.from_bytes(digest[:8], "big") % slots
    stretch = int.from_bytes(digest[8:], "big") % (slots - 1) + 1
    return start, stretch


@lru_cache(maxsize=4)
def _powers(slots: int) -> list[int]:
    """k ** e modulo a prime, for k from 0: every slot once if e is coprime to the prime - 1.

    The paper walks by a constant step. Two such walks with similar steps follow each other for
    long, which in small tables makes up to 2.5 % of the flows move needlessly (4 backends, 4,093
    slots); powers scatter, and it stays below 1 %.
    """
    exponent = next(e for e in range(3, slots, 2) if gcd(e, slots - 1) == 1)
    return [pow(k, exponent, slots) for k in range(slots)]


def maglev_table(backends: Sequence[tuple[str, int]], slots: int) -> list[int]:
    """Which backend owns each slot.

    ``backends`` are (key, weight) pairs with distinct keys, in any order: the table depends on
    keys and weights only. ``slots`` is a prime. Returns ``slots`` indices into ``backends``;
    an empty list when no backend has a weight above 0.
    """
    eligible = sorted((key, weight, i) for i, (key, weight) in enumerate(backends) if weight > 0)
    if not eligible:
        return []
    if len(eligible) == 1:
        return [eligible[0][2]] * slots
    powers = _powers(slots)
    table = [-1] * slots
    walks = [_walk(key, slots) for key, _, _ in eligible]
    steps = [0] * len(eligible)
    # A queue of turns: (time of the turn, backend's rank). Equal times go by rank.
    queue = [(_SCALE // weight, rank) for rank, (_, weight, _) in enumerate(eligible)]
    heapq.heapify(queue)
    turns = [1] * len(eligible)
    for _ in range(slots):
        rank = queue[0][1]
        _, weight, index = eligible[rank]
        start, stretch = walks[rank]
        step = steps[rank]
        while table[at := (start + stretch * powers[step]) % slots] >= 0:
            step += 1
        table[at] = index
        steps[rank] = step + 1
        turns[rank] += 1
        heapq.heapreplace(queue, (turns[rank] * _SCALE // weight, rank))
    return table
