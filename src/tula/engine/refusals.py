"""Requests that were refused: how many an address may try, and what the log says of them.

Both forget: whoever has many addresses can push others out, which costs lines of the log and lets
nobody in, for a token cannot be guessed. Pure but for the given clock.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_ADDRESSES = 4096
"""Addresses that are remembered at most."""
_FAILURES, _PER_FAILURE = 20, 3.0
"""Failed attempts that an address has at once, and seconds after which it has one more."""
_LINES, _PER_LINE = 5, 60.0
"""The same for lines of the log about one address,"""
_ALL_LINES, _PER_ANY_LINE = 100, 1.0
"""and about all of them together."""
_PREFIX6 = 64
"""Bits of an IPv6 address that tell one client from another: it has all the rest to itself."""
_LONGEST = 200
"""Characters of a path in the log."""
_SECRET = re.compile(r"tula_[^/&\s]*", re.IGNORECASE)


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if found.version == 6:
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found), _PREFIX6), strict=False))
    return str(found)


@dataclass(slots=True)
class _Bucket:
    """Tokens that come back with time."""

    left: float
    at: float

    def take(self, most: int, seconds: float, now: float) -> float:
        """Takes one; 0, or the seconds until there is one."""
        self.left = min(float(most), self.left + max(0.0, now - self.at) / seconds)
        self.at = now
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) * seconds


class Buckets:
    """One for each client, refilled by time; the one that was used least lately goes first."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._of: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """As ``_Bucket.take``."""
        bucket = self._of.pop(key, None) or _Bucket(self._most, now)
        self._of[key] = bucket
        if len(self._of) > _ADDRESSES:
            self._of.popitem(last=False)
        return bucket.take(self._most, self._seconds, now)


class FailedAttempts:
    """Limits them by client. A token that counts is never refused for others' failures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of = Buckets(_FAILURES, _PER_FAILURE)

    def note(self, address: str) -> float:
        """Notes one; 0 if it may be answered as what it is, else the seconds to wait (429)."""
        return self._of.take(client_key(address), self._clock())


class RefusalLog:
    """Counts refusals by reason and logs them, so that nobody can fill the disk with them."""

    def __init__(
        self, log: Callable[[str, str, str, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``log`` is given address, path, reason, and how many refusals of this client were not
        logged since the last line about it."""
        self._log = log
        self._clock = clock
        self._of = Buckets(_LINES, _PER_LINE)
        self._all = _Bucket(_ALL_LINES, clock())
        self._unlogged: OrderedDict[str, int] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def note(self, address: str, path: str, reason: str) -> None:
        """A request for ``path``, of which what may be secret is left out, was refused."""
        self.counts[reason] += 1
        now, key = self._clock(), client_key(address)
        if self._of.take(key, now) or self._all.take(_ALL_LINES, _PER_ANY_LINE, now):
            self._unlogged[key] = self._unlogged.pop(key, 0) + 1
            if len(self._unlogged) > _ADDRESSES:
                self._unlogged.popitem(last=False)
            return
        self._log(address, loggable_path(path), reason, self._unlogged.pop(key, 0))


def loggable_path(path: str) -> str:
    """A path without its query and what looks like a token, in printable ASCII without quotes, not
    too long."""
    text = _SECRET.sub("[token]", path.partition("?")[0])
    shown = "".join(c if c.isascii() and c.isprintable() and c != '"' else "?" for c in text)
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
