"""The rules of base chains, and the look-ups of a dispatch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tula.dataplane.nft.ruleset import MapName, Rule


class BaseRules:
    """The rules of base chains, for one way to tell an IP packet: ``frame``, by IP version."""

    def __init__(self, frame: Mapping[int, str]) -> None:
        self.frame = frame
        self.hot: list[Rule] = []
        self.by_port: list[Rule] = []
        self.rest: list[Rule] = []

    def rules(self, tagged: Iterable[Rule] = ()) -> tuple[Rule, ...]:
        """All of them. A flooding switch or a sniffer's promiscuous mode shows frames for other
        machines. The rules before the one against those test for that themselves: one rule less
        for most packets."""
        others = Rule.of("meta pkttype != host return")
        return (*self.hot, *self.by_port, others, *tagged, *self.rest)


def lookups(maps: Iterable[MapName | None], fields: tuple[str, str], match: str = "") -> list[Rule]:
    """The rules of a dispatch; ``fields`` are expressions: VIP and protocol, and the port."""
    with_port = " . ".join(fields)
    return [
        Rule.of(f"{match}{key} vmap @{name}")
        for name, key in zip(maps, (with_port, with_port, fields[0]), strict=True)
        if name is not None
    ]
