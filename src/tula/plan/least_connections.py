"""least-connections: from how many connections each backend has to its share of new ones. Pure.

Who has more than its weight's part of them gets less of the new ones, by the third power of how
much more. Each step goes a quarter of the way there: what was counted is the past, and flows that
are short answer to the shares within one step. With the third power that is the fastest way that
does not swing (each step leaves 1 - (1 + 3) / 4 = 0 of a difference); flows that stay for long
answer slower, and swing little (tests/unit/plan/test_least_connections.py plays both).
"""

from __future__ import annotations

from collections.abc import Mapping

STEPS = 100
"""The largest share; the smallest of a backend that serves is 1."""
_POWER = 3
_SMOOTH = 0.25
_MOST = 8.0
"""The most by which a backend that has too few is preferred."""
_MOVE = 0.04
"""Shares that all differ by less than this part of the largest stay: elements need not move."""


def least_shares(
    weights: Mapping[str, int], held: Mapping[str, int], before: Mapping[str, float]
) -> dict[str, float]:
    """The shares of one service's backends, of any scale, after one more count.

    ``weights`` are those of the backends that take new connections, ``held`` what each has by the
    count; ``before`` the shares until now.
    """
    eligible = {name: weight for name, weight in weights.items() if weight > 0}
    if not eligible:
        return {}
    whole = sum(eligible.values())
    # One more each: a backend with none is not infinitely better than one with a few.
    loads = {name: (held.get(name, 0) + 1) / weight for name, weight in eligible.items()}
    mean = sum(held.get(name, 0) + 1 for name in eligible) / whole
    wanted = {
        name: weight * min(_MOST, (mean / loads[name]) ** _POWER)
        for name, weight in eligible.items()
    }
    known = {name: before.get(name, 0.0) for name in eligible}
    if not all(known.values()):  # the first count, or one that came back
        known = {name: float(weight) for name, weight in eligible.items()}
    old, new = sum(known.values()), sum(wanted.values())
    return {
        name: (1 - _SMOOTH) * known[name] / old + _SMOOTH * wanted[name] / new for name in eligible
    }


def whole_shares(shares: Mapping[str, float], before: Mapping[str, int]) -> dict[str, int]:
    """The shares as 1 to STEPS; those from ``before`` if they are as good."""
    largest = max(shares.values(), default=0.0)
    made = {name: max(1, round(STEPS * share / largest)) for name, share in shares.items()}
    near = made.keys() == before.keys() and all(
        abs(number - before[name]) <= _MOVE * STEPS and (number == 1) == (before[name] == 1)
        for name, number in made.items()
    )
    return dict(before) if near else made
