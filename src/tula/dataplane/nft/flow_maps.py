"""The maps that packets fill, and what rules do with their entries: refresh, forget, move."""

from __future__ import annotations

from dataclasses import dataclass

from tula.dataplane.nft.client_maps import ClientMaps
from tula.dataplane.nft.packet_fields import FLOW_KEY, HOT_KEY
from tula.dataplane.nft.ruleset import Kind, MapName, Rule
from tula.dataplane.nft.sample import Sample
from tula.dataplane.nft.shared_flows import Sharing
from tula.model.config import Connections, Protocol

FLOWS = {
    4: {Protocol.TCP: Kind.TCP4, Protocol.UDP: Kind.UDP4},
    6: {Protocol.TCP: Kind.TCP6, Protocol.UDP: Kind.UDP6},
}
HOTS = {
    4: {Protocol.TCP: Kind.HOT_TCP4, Protocol.UDP: Kind.HOT_UDP4},
    6: {Protocol.TCP: Kind.HOT_TCP6, Protocol.UDP: Kind.HOT_UDP6},
}
CLOSED = {4: Kind.CLOSED4, 6: Kind.CLOSED6}
FRAGMENTS = {4: Kind.FRAG4, 6: Kind.FRAG6}
"""The kinds by IP version."""

TABLE_FULL = "table_full"
"""New flows, and fragmented datagrams, that found their table full; flows then go by hash."""

CLOSING = 60
"""Seconds that a connection is kept after its client's FIN or RST, from its last packet on: long
enough for the answer to a client that has sent all it had to send."""
HOT = 60
"""Seconds that a flow stays hot, but at most a quarter of its entry's lifetime."""

UNMARK = "meta mark set 0"


@dataclass(frozen=True, slots=True)
class FlowMaps:
    """The maps of one IP version that packets fill; flow tables are None when turned off."""

    version: int
    settings: Connections
    forward: Rule
    fragments: MapName
    tables: dict[Protocol, MapName] | None
    hot: dict[Protocol, MapName]
    closed: MapName | None
    accepting: MapName | None
    try_learn: bool
    """Whether some service chooses for new flows otherwise than by hash."""
    sharing: Sharing | None = None
    """None where no other balancer must know flows."""
    clients: ClientMaps | None = None
    """None where no service remembers clients."""
    sample: Sample | None = None
    """None where the tables can be counted as they are."""

    def name(self, part: str) -> str:
        """The chain of this IP version with that name."""
        return f"{part}{self.version}"


def seconds(value: float) -> str:
    """A time as nft takes it, in whole milliseconds."""
    return f"{max(1, round(value * 1000))}ms"


def refresh(flows: FlowMaps, protocol: Protocol, life: float) -> str:
    """Keeps a flow for that many seconds from now. An existing entry keeps its backend."""
    assert flows.tables is not None
    key = FLOW_KEY[flows.version]
    return f"update @{flows.tables[protocol]} {{ {key} timeout {seconds(life)} : meta mark }}"


def _hot(life: float) -> float:
    return min(HOT, life / 4)


def with_hot(life: float) -> float:
    return life + _hot(life)


def _stays_hot(flows: FlowMaps, life: float) -> float:
    """Seconds. The end of another connection of the client leaves its entry the timeout: a live
    one must pass the rules that keep the entry before that is over."""
    return _hot(life) if flows.clients is None else min(_hot(life), flows.clients.shortest / 2)


def refresh_hot(flows: FlowMaps, protocol: Protocol, life: float) -> str:
    """Keeps a flow that many seconds from its last packet, and makes it hot."""
    entry = f"{{ {HOT_KEY[flows.version]} timeout {seconds(_stays_hot(flows, life))} : meta mark }}"
    return f"{refresh(flows, protocol, with_hot(life))} add @{flows.hot[protocol]} {entry}"


def forget(flows: FlowMaps, protocol: Protocol) -> str:
    assert flows.tables is not None
    hot = f"delete @{flows.hot[protocol]} {{ {HOT_KEY[flows.version]} : meta mark }}"
    key = FLOW_KEY[flows.version]
    sampled = "" if flows.sample is None else f" {flows.sample.forget()}"
    return f"{hot} delete @{flows.tables[protocol]} {{ {key} : meta mark }}{sampled}"


def keep_sampled(flows: FlowMaps, life: float) -> tuple[Rule, ...]:
    """Keeps a flow in the sample, if it is of it, beside ``refresh_hot``."""
    return () if flows.sample is None else (Rule.of(flows.sample.keep(seconds(with_hot(life)))),)


def closed_entry(flows: FlowMaps) -> str:
    return f"{{ {FLOW_KEY[flows.version]} timeout {seconds(CLOSING)} : meta mark }}"


def forget_closed(flows: FlowMaps) -> str:
    return f"delete @{flows.closed} {{ {FLOW_KEY[flows.version]} : meta mark }}"


def then_forward(flows: FlowMaps, text: str) -> Rule:
    return Rule(
        Rule.of(text, flows.forward.digest).digest,
        f"{text} {flows.forward.text}",
    )


def stale_rule(flows: FlowMaps, protocol: Protocol) -> Rule:
    """Only reached when the backend has left: forget the flow, and choose another backend."""
    return Rule.of(f"{forget(flows, protocol)} {UNMARK}")
