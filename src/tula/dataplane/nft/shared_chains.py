"""The chains that all services share, by IP version: forwarding, flows, fragments, ICMP errors.

A packet that a flow table knows goes ``hit_* → forward``; a new one ``svc* → chosen → forward``.
``jump`` leads into what may turn out to be stale: it comes back, and the packet is chosen for
anew. Marks are only ever set on packets that are for a service.
"""

from __future__ import annotations

from dataclasses import dataclass

from tula.dataplane.nft.ruleset import Chain, MapName, Rule
from tula.dataplane.nft.words import (
    FIRST_FRAGMENT,
    FLOW_KEY,
    FRAGMENT_KEY,
    INNER,
    LATER_FRAGMENT,
    PLAIN_HEADER,
    READABLE,
)
from tula.model.config import Connections, Protocol

NO_BACKEND = "no_backend"
"""The counter of packets that were for a service, but for none of its backends."""
TABLE_FULL = "table_full"
"""New flows that found no room in their table, and go by hash."""
FRAGMENTS = "fragments"
"""Later fragments that followed their datagram's first."""
ICMP_STEERED = "icmp_steered"
"""ICMP errors that went to the backend of the flow inside."""
COUNTERS = frozenset({NO_BACKEND, TABLE_FULL, FRAGMENTS, ICMP_STEERED})

CLOSING = 60
"""Seconds that a connection is held after its client's FIN or RST, from its last packet on: long
enough for the answer to a client that has said all it had to say."""
FRAGMENT_LIFE = 30
"""Seconds that later fragments find their backend; Linux waits as long (ipfrag_time)."""

DROP = Rule.of(f"counter name {NO_BACKEND} drop")


@dataclass(frozen=True, slots=True)
class Flows:
    """The maps of one IP version that packets fill; flow tables are None when turned off."""

    version: int
    settings: Connections
    forward: Rule
    fragments: MapName
    tables: dict[Protocol, MapName] | None
    closed: MapName | None
    open: MapName | None
    turns: bool
    """Whether some service gives new flows their turn."""

    def name(self, part: str) -> str:
        """The chain of this version that does ``part``."""
        return f"{part}{self.version}"


def shared_chains(flows: Flows) -> dict[str, Chain]:
    """All of them, by name."""
    chains = {
        flows.name("forward"): Chain((flows.forward, DROP)),
        flows.name("steer"): Chain((_counted(flows, ICMP_STEERED), DROP)),
        flows.name("fragment"): Chain(_fragment(flows)),
        flows.name("keep"): Chain(_keep_fragments(flows)),
        flows.name("chosen"): Chain(_chosen(flows)),
    }
    if flows.version == 6:
        chains[flows.name("readable")] = Chain(tuple(_known_first(flows)))
    if flows.tables is not None:
        chains |= {
            flows.name("hit_tcp"): Chain(_hit_tcp(flows)),
            flows.name("control_tcp"): Chain(_control_tcp(flows)),
            flows.name("hit_udp"): Chain(_hit(flows, Protocol.UDP, flows.settings.udp)),
            flows.name("first_tcp"): Chain(_first(flows, Protocol.TCP)),
            flows.name("first_udp"): Chain(_first(flows, Protocol.UDP)),
            flows.name("learn_tcp"): Chain(_learn(flows, Protocol.TCP)),
            flows.name("learn_udp"): Chain(_learn(flows, Protocol.UDP)),
            flows.name("closed"): Chain(_closed(flows)),
            flows.name("known"): Chain((_counted(flows, ICMP_STEERED), Rule.of(_UNMARK))),
        }
        if flows.turns:
            chains[flows.name("turn")] = Chain(_turn(flows))
    return chains


_UNMARK = "meta mark set 0"


def flow_lookup(flows: Flows, protocol: Protocol, then: str) -> str:
    """Finds a packet's flow: its backend's id becomes the mark, then the verdict."""
    assert flows.tables is not None
    return f"meta mark set {FLOW_KEY[flows.version]} map @{flows.tables[protocol]} {then}"


def inner_lookups(flows: Flows) -> list[Rule]:
    """Finds the flow inside an ICMP error."""
    if flows.tables is None:
        return []
    return [
        Rule.of(
            f"{inner.match}{inner.protocol} {protocol.number} "
            f"meta mark set {inner.key} map @{table} jump {flows.name('known')}"
        )
        for inner in INNER[flows.version]
        for protocol, table in (*flows.tables.items(), (Protocol.TCP, flows.closed))
    ]


def seconds(value: float) -> str:
    """A time as nft takes it, in whole milliseconds."""
    return f"{max(1, round(value * 1000))}ms"


def _counted(flows: Flows, counter: str) -> Rule:
    return Rule(flows.forward.digest + counter, f"counter name {counter} {flows.forward.text}")


def _refresh(flows: Flows, protocol: Protocol, life: float) -> str:
    """Keeps a flow for so long from now. An entry that is there keeps its backend."""
    assert flows.tables is not None
    key = FLOW_KEY[flows.version]
    return f"update @{flows.tables[protocol]} {{ {key} timeout {seconds(life)} : meta mark }}"


def _forget(flows: Flows, protocol: Protocol) -> str:
    assert flows.tables is not None
    return f"delete @{flows.tables[protocol]} {{ {FLOW_KEY[flows.version]} : meta mark }}"


def _closed_entry(flows: Flows) -> str:
    return f"{{ {FLOW_KEY[flows.version]} timeout {seconds(CLOSING)} : meta mark }}"


def _forget_closed(flows: Flows) -> str:
    return f"delete @{flows.closed} {{ {FLOW_KEY[flows.version]} : meta mark }}"


def _then_forward(flows: Flows, text: str) -> Rule:
    return Rule(
        Rule.of(text, flows.forward.digest).digest,
        f"{text} {flows.forward.text}",
    )


def _stale(flows: Flows, protocol: Protocol) -> Rule:
    """Only reached when the backend's id has left: forget the flow and choose anew."""
    return Rule.of(f"{_forget(flows, protocol)} {_UNMARK}")


def _hit(flows: Flows, protocol: Protocol, life: float) -> tuple[Rule, ...]:
    return (
        _then_forward(flows, _refresh(flows, protocol, life)),
        _stale(flows, protocol),
    )


def _hit_tcp(flows: Flows) -> tuple[Rule, ...]:
    # FIN, SYN and RST are the low three bits of the flags (RFC 9293, section 3.1).
    control = Rule.of(f"@th,104,8 & 0x07 != 0 goto {flows.name('control_tcp')}")
    return (control, *_hit(flows, Protocol.TCP, flows.settings.tcp))


def _control_tcp(flows: Flows) -> tuple[Rule, ...]:
    """SYN, FIN or RST of a flow that is known."""
    ends = "tcp flags & (fin|rst) != 0"
    # The client's ACK of the last FIN looks like any other and would keep a closed connection
    # for as long as an open one. So it moves to a table of its own, where an ACK keeps it shortly.
    move = f"add @{flows.closed} {_closed_entry(flows)} {_forget(flows, Protocol.TCP)}"
    return (
        # A client that uses its port again, and the backend takes nothing new: choose anew.
        Rule.of(
            f"tcp flags & (fin|syn|rst|ack) == syn meta mark != @{flows.open} {_UNMARK} return"
        ),
        _then_forward(flows, f"{ends} {_forget_closed(flows)} {move}"),
        # Only reached when there is no room among the closed.
        _then_forward(flows, f"{ends} {_refresh(flows, Protocol.TCP, CLOSING)}"),
        flows.forward,
        Rule.of(_forget_closed(flows)),
        _stale(flows, Protocol.TCP),
    )


def _closed(flows: Flows) -> tuple[Rule, ...]:
    """The last packets of a connection, and the ACKs of a client that only listens."""
    return (
        _keep(flows),
        _then_forward(flows, f"update @{flows.closed} {_closed_entry(flows)}"),
        Rule.of(_forget_closed(flows)),
        DROP,
    )


def _fragment(flows: Flows) -> tuple[Rule, ...]:
    """Fragments, and what stands behind extension headers, before anything reads ports."""
    key, later = FRAGMENT_KEY[flows.version], LATER_FRAGMENT[flows.version]
    rules = [
        Rule.of(
            f"{later} meta mark set {key} map @{flows.fragments} "
            f"counter name {FRAGMENTS} goto {flows.name('forward')}"
        ),
        # One whose first was not seen, or that is for the host: the host's own stack.
        Rule.of(f"{later} accept"),
    ]
    if flows.version == 4:
        return (*rules, *_known_first(flows))
    return (*rules, Rule.of(f"{READABLE} goto {flows.name('readable')}"), Rule.of("accept"))


def _known_first(flows: Flows) -> list[Rule]:
    """A first fragment, or one behind extension headers, of a flow that is known."""
    rules = []
    for protocol in flows.tables or {}:
        known = flow_lookup(flows, protocol, f"jump {flows.name(f'first_{protocol}')}")
        rules.append(
            Rule.of(f"{PLAIN_HEADER[flows.version]}meta l4proto {protocol.number} {known}")
        )
    return rules


def _first(flows: Flows, protocol: Protocol) -> tuple[Rule, ...]:
    return _keep(flows), Rule.of(f"goto {flows.name(f'hit_{protocol}')}")


def _keep(flows: Flows) -> Rule:
    return Rule.of(f"{FIRST_FRAGMENT[flows.version]} jump {flows.name('keep')}")


def _keep_fragments(flows: Flows) -> tuple[Rule, ...]:
    """The datagram's other fragments must follow this one."""
    key = FRAGMENT_KEY[flows.version]
    life = seconds(FRAGMENT_LIFE)
    return (
        # An update would keep the backend of an entry that is there, and a client's datagrams
        # have the same identification again after 65,536: delete first.
        Rule.of(f"delete @{flows.fragments} {{ {key} : meta mark }}"),
        Rule.of(f"update @{flows.fragments} {{ {key} timeout {life} : meta mark }} return"),
        # Only reached when there is no room.
        Rule.of(f"counter name {TABLE_FULL}"),
    )


def _chosen(flows: Flows) -> tuple[Rule, ...]:
    """A backend was chosen by the service: learn what is new, then forward."""
    rules = [_keep(flows)]
    if flows.tables is not None:
        # Without a SYN it is the middle of a connection that is not known, or too short to tell:
        # by hash, and not learned.
        rules += [
            Rule.of(f"tcp flags & (fin|syn|rst|ack) == syn goto {flows.name('learn_tcp')}"),
            Rule.of(f"meta l4proto 17 goto {flows.name('learn_udp')}"),
            Rule.of(
                f"{PLAIN_HEADER[flows.version]}meta l4proto 6 "
                f"meta mark set {FLOW_KEY[flows.version]} map @{flows.closed} "
                f"goto {flows.name('closed')}"
            ),
        ]
    return (*rules, Rule.of(f"goto {flows.name('forward')}"))


def _add(flows: Flows, protocol: Protocol) -> tuple[Rule, ...]:
    """Keeps a new flow and forwards it; comes back only when there is no room."""
    assert flows.tables is not None
    plain, table = PLAIN_HEADER[flows.version], flows.tables[protocol]
    tcp = protocol is Protocol.TCP
    match = f"{plain}meta l4proto {protocol.number}"
    life = flows.settings.tcp_half_open if tcp else flows.settings.udp
    entry = f"{{ {FLOW_KEY[flows.version]} timeout {seconds(life)} : meta mark }}"
    return (
        Rule.of(f"{match} {_forget(flows, protocol)}"),
        Rule.of(f"{match} add @{table} {entry} goto {flows.name('forward')}"),
    )


def _turn(flows: Flows) -> tuple[Rule, ...]:
    """A backend was chosen by turn; comes back when there is no room, to choose by hash.

    A flow without an entry goes by hash from its second packet on, so the first one must.
    """
    added = [rule for protocol in flows.tables or {} for rule in _add(flows, protocol)]
    return (_keep(flows), *added)


def _learn(flows: Flows, protocol: Protocol) -> tuple[Rule, ...]:
    plain, forward = PLAIN_HEADER[flows.version], f"goto {flows.name('forward')}"
    return (
        *_add(flows, protocol),
        # Only reached when there is no room.
        Rule.of(f"{plain}counter name {TABLE_FULL} {forward}"),
        Rule.of(forward),
    )
