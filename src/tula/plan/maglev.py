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
SMALLEST = 4093
_SIZES = ((4, SMALLEST), (12, 16381))
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


def turns_table(backends: Sequence[tuple[str, int]]) -> list[int]:
    """Who is next, turn by turn, as often as weights say; then again from the start.

    ``backends`` are (key, weight) pairs. Returns indices into ``backends``, as many as the sum
    of the weights divided by their greatest common divisor, 4,093 at the most; none of weight 0.
    """
    eligible = sorted((key, weight, i) for i, (key, weight) in enumerate(backends) if weight > 0)
    if not eligible:
        return []
    whole = sum(weight for _, weight, _ in eligible)
    length = min(whole // gcd(*(weight for _, weight, _ in eligible)), SMALLEST)
    queue = _Turns([weight for _, weight, _ in eligible])
    return [eligible[queue.next()][2] for _ in range(length)]


class _Turns:
    """A queue of turns, by weight: its owner's rank, turn by turn. Equal times go by rank."""

    def __init__(self, weights: list[int]) -> None:
        self._weights = weights
        self._taken = [1] * len(weights)
        self._queue = [(_SCALE // weight, rank) for rank, weight in enumerate(weights)]
        heapq.heapify(self._queue)

    def next(self) -> int:
        """The rank whose turn it is."""
        rank = self._queue[0][1]
        self._taken[rank] += 1
        time = self._taken[rank] * _SCALE // self._weights[rank]
        heapq.heapreplace(self._queue, (time, rank))
        return rank


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
    turns = _Turns([weight for _, weight, _ in eligible])
    for _ in range(slots):
        rank = turns.next()
        start, stretch = walks[rank]
        step = steps[rank]
        while table[at := (start + stretch * powers[step]) % slots] >= 0:
            step += 1
        table[at] = eligible[rank][2]
        steps[rank] = step + 1
    return table
