"""Maglev hashing with weights.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
section 3.4: every backend walks the table's slots in an order of its own and the backends take
turns in claiming the next slot that is still free. When a backend leaves, the others keep
nearly all of their slots. Weights decide how often a backend's turn comes.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from math import gcd
from threading import Lock

from tula.model.desired import Content

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


def wrr_table(backends: Sequence[tuple[str, int]], length: int | None = None) -> list[int]:
    """Who is next, turn by turn, as often as weights say; then again from the start.

    ``backends`` are (key, weight) pairs. Returns indices into ``backends``; as many as ``length``,
    else as the sum of the weights divided by their greatest common divisor, 4,093 at the most;
    none of weight 0.
    """
    eligible = sorted((key, weight, i) for i, (key, weight) in enumerate(backends) if weight > 0)
    if not eligible:
        return []
    whole = sum(weight for _, weight, _ in eligible)
    if length is None:
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


class _Kept:
    """Tables by what they are made of, the latest used ones, up to ``room`` slots in all.

    A table of 65,537 slots takes half a second, and a change of one service leaves the others'.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._tables: OrderedDict[tuple[Content, int], tuple[int, ...]] = OrderedDict()
        self._slots = 0
        self._turn = Lock()

    def table(self, content: Content, slots: int) -> tuple[int, ...]:
        """The table; made if it is not kept."""
        with self._turn:
            found = self._tables.get((content, slots))
            if found is not None:
                self._tables.move_to_end((content, slots))
                return found
        made = tuple(_make_table(content, slots))
        with self._turn:
            if (content, slots) not in self._tables:
                self._tables[content, slots] = made
                self._slots += len(made)
            while self._slots > self._room:
                self._slots -= len(self._tables.popitem(last=False)[1])
        return made


_KEPT = _Kept(32 * LARGEST)
"""8 bytes a slot: 16 MiB."""


def maglev_table(backends: Sequence[tuple[str, int]], slots: int) -> tuple[int, ...]:
    """Which backend owns each slot.

    ``backends`` are (key, weight) pairs with distinct keys, in any order: the table depends on
    keys and weights only. ``slots`` is a prime. Returns ``slots`` indices into ``backends``;
    nothing when no backend has a weight above 0.
    """
    return _KEPT.table(tuple(backends), slots)


def _make_table(backends: Content, slots: int) -> list[int]:
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
