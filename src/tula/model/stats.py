"""What a data path counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NO_BACKEND = "no_backend"
"""The counter of packets for a service that no backend could take; they are dropped."""

DENIED = "denied"
"""The counter of packets from clients that a service's lists do not admit."""

LIMITED = "limited"
"""The counter of packets that began one connection more than a service's limits let pass."""

TOO_LARGE = "too_large"
"""The counter of packets that were seen to be too large for the link to their backend."""

FLOWS_SENT = "flows_sent"
"""The counter of packets whose flow the other balancers were told of."""

FLOWS_LEARNED = "flows_learned"
"""The counter of packets from other balancers that a flow was learned from."""

FLOWS_UNKNOWN = "flows_unknown"
"""The counter of packets from other balancers for a service or a backend that this one does not
have: the configurations differ."""

FORWARDED_HERE = "forwarded_here"
"""The counter of packets that other balancers have forwarded to this machine as their backend."""

CLIENTS_FULL = "clients_full"
"""The counter of new clients that found the table of persistent clients full; they go by hash, and
are not remembered."""

BackendKey = tuple[str, str]
"""A service's name and ``Backend.key``."""


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes; a packet may be an aggregate of several (GRO), bytes are exact."""

    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.packets + other.packets, self.bytes + other.bytes)


Refused = Mapping[tuple[str, str], Count]
"""Packets of clients that were refused: by the service's name, and DENIED or LIMITED."""


class Counted(dict[tuple[str, str], int]):
    """Connections by a service's name and a backend's name or ``Backend.key``.

    ``estimated``: there are too many to count each. Backends that are ``empty`` have none all the
    same, which somebody wanted to know for certain.
    """

    def __init__(
        self,
        counts: Mapping[tuple[str, str], int] | None = None,
        estimated: bool = False,
        empty: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(counts or {})
        self.estimated = estimated
        self.empty = frozenset(empty)


def is_estimate(counts: Mapping[tuple[str, str], int] | None, name: tuple[str, str]) -> bool:
    """Whether a backend's number is one."""
    return isinstance(counts, Counted) and counts.estimated and name not in counts.empty


@dataclass(frozen=True, slots=True)
class TableUse:
    """One table that packets fill; ``entries`` is None where the kernel does not tell. ``scope``
    is ``ClientScope.label``, of a table of persistent clients of one IP ``version``."""

    name: str
    entries: int | None
    size: int
    scope: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """One reading of a data path.

    ``backends`` are what each backend was sent; ``counters`` what is counted as a whole, by name,
    such as ``no_backend``; ``tables`` how full the connection tables are; ``no_backend`` is that
    counter by service, as far as it is known whose packets they were.
    """

    backends: Mapping[BackendKey, Count] = field(default_factory=dict)
    counters: Mapping[str, Count] = field(default_factory=dict)
    tables: tuple[TableUse, ...] = ()
    no_backend: Mapping[str, Count] = field(default_factory=dict)
    refused: Refused = field(default_factory=dict)


def refused_packets(refused: Refused, service: str) -> dict[str, int]:
    """The packets of one service's clients that were refused, by DENIED and LIMITED."""
    return {what: refused.get((service, what), Count()).packets for what in (DENIED, LIMITED)}
