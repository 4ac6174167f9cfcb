"""The chains that all services share, by IP version: forwarding, flows, fragments, ICMP errors.

A packet of a service that a flow table knows goes ``known_* → hit_*``; a new one comes back to
its service's chain and goes ``chosen → forward``, as does one whose entry turns out to be stale.
Marks are only ever set on packets that are for a service.

Most packets see none of this. To prolong an entry costs as much as the rest of a packet's way,
so an entry that was prolonged is put into a hot table for a short while, and the base chain
forwards what it finds there at once. Each entry is given that while on top of its life.
"""

from __future__ import annotations

from dataclasses import dataclass

from tula.dataplane.nft.ruleset import Chain, MapName, Rule
from tula.dataplane.nft.words import (
    FIRST_FRAGMENT,
    FLOW_KEY,
    FRAGMENT_KEY,
    HOT_KEY,
    INNER,
    IP,
    LATER_FRAGMENT,
    PLAIN_HEADER,
    PROTOCOL,
    READABLE,
    whole,
)
from tula.model.config import Connections, Protocol
from tula.model.stats import NO_BACKEND

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
HOT = 60
"""Seconds at most that an entry stays hot, and a quarter of its life at most."""
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
    hot: dict[Protocol, MapName]
    closed: MapName | None
    open: MapName | None
    turns: bool
    """Whether some service gives new flows their turn."""

    def name(self, part: str) -> str:
        """The chain of this version that does ``part``."""
        return f"{part}{self.version}"


def shared_chains(flows: Flows, exact: MapName | None) -> dict[str, Chain]:
    """All of them, by name; ``exact`` is the dispatch by exact ports, if there is one."""
    chains = {
        flows.name("forward"): Chain((flows.forward, DROP)),
        flows.name("steer"): Chain((_counted(flows, ICMP_STEERED), DROP)),
        flows.name("fragment"): Chain(_fragment(flows, exact)),
        flows.name("keep"): Chain(_keep_fragments(flows)),
        flows.name("chosen"): Chain(_chosen(flows)),
    }
    if flows.tables is not None:
        chains |= {
            flows.name("hit_tcp"): Chain(_hit_tcp(flows)),
            flows.name("control_tcp"): Chain(_control_tcp(flows)),
            flows.name("hit_udp"): Chain(_hit(flows, Protocol.UDP, flows.settings.udp)),
            flows.name("known_tcp"): Chain(_known(flows, Protocol.TCP)),
            flows.name("known_udp"): Chain(_known(flows, Protocol.UDP)),
            flows.name("learn_tcp"): Chain(_learn(flows, Protocol.TCP)),
            flows.name("learn_udp"): Chain(_learn(flows, Protocol.UDP)),
            flows.name("closed"): Chain(_closed(flows)),
            flows.name("known"): Chain((_counted(flows, ICMP_STEERED), Rule.of(_UNMARK))),
        }
        if flows.turns:
            chains[flows.name("turn")] = Chain(_turn(flows))
    return chains


_UNMARK = "meta mark set 0"


def hot_rule(flows: Flows, protocol: Protocol, guard: str) -> Rule:
    """Forwards a packet whose flow is hot; any other goes on, and its mark is as it was.

    A backend that left breaks the rule: the packet goes on with a mark, and gets another one in
    its service's chain. When that left too, the hot tables are emptied with it.
    """
    # FIN, SYN and RST are the low three bits of the flags (RFC 9293, section 3.1).
    open_ = "@th,104,8 & 0x07 == 0 " if protocol is Protocol.TCP else ""
    match = f"{whole(flows.version, protocol.number)}{guard}{open_}"
    key = HOT_KEY[flows.version]
    return _then_forward(flows, f"{match}meta mark set {key} map @{flows.hot[protocol]}")


def known_jumps(flows: Flows, protocols: tuple[Protocol, ...]) -> list[Rule]:
    """Where a service looks its packets' flows up, before it chooses."""
    if flows.tables is None:
        return []
    which = {p: f"meta l4proto {p.number} " if len(protocols) > 1 else "" for p in protocols}
    return [Rule.of(f"{which[p]}jump {flows.name(f'known_{p}')}") for p in protocols]


def _known(flows: Flows, protocol: Protocol) -> tuple[Rule, ...]:
    assert flows.tables is not None
    found = f"meta mark set {FLOW_KEY[flows.version]} map @{flows.tables[protocol]}"
    return (Rule.of(f"{PLAIN_HEADER[flows.version]}{found} goto {flows.name(f'hit_{protocol}')}"),)


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


def _heat(flows: Flows, protocol: Protocol, life: float) -> str:
    """Keeps a flow for so long from its last packet, and its next packets out of here."""
    hot = min(HOT, life / 4)
    entry = f"{{ {HOT_KEY[flows.version]} timeout {seconds(hot)} : meta mark }}"
    return f"{_refresh(flows, protocol, life + hot)} add @{flows.hot[protocol]} {entry}"


def _forget(flows: Flows, protocol: Protocol) -> str:
    assert flows.tables is not None
    hot = f"delete @{flows.hot[protocol]} {{ {HOT_KEY[flows.version]} : meta mark }}"
    key = FLOW_KEY[flows.version]
    return f"{hot} delete @{flows.tables[protocol]} {{ {key} : meta mark }}"


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
        _keep(flows),
        _then_forward(flows, _heat(flows, protocol, life)),
        # Only reached when there is no room among the hot, or the backend's id has left.
        flows.forward,
        _stale(flows, protocol),
    )


def _hit_tcp(flows: Flows) -> tuple[Rule, ...]:
    control = Rule.of(f"@th,104,8 & 0x07 != 0 goto {flows.name('control_tcp')}")
    return (control, *_hit(flows, Protocol.TCP, flows.settings.tcp))


def _control_tcp(flows: Flows) -> tuple[Rule, ...]:
    """SYN, FIN or RST of a flow that is known."""
    ends = "tcp flags & (fin|rst) != 0"
    # The client's ACK of the last FIN looks like any other and would keep a closed connection
    # for as long as an open one. So it moves to a table of its own, where an ACK keeps it shortly.
    move = f"add @{flows.closed} {_closed_entry(flows)} {_forget(flows, Protocol.TCP)}"
    return (
        _keep(flows),
        # A client that uses its port again, and the backend takes nothing new: choose anew.
        Rule.of(
            f"tcp flags & (fin|syn|rst|ack) == syn meta mark != @{flows.open} "
            f"{_forget(flows, Protocol.TCP)} {_UNMARK} return"
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


def _fragment(flows: Flows, exact: MapName | None) -> tuple[Rule, ...]:
    """Fragments, and what stands behind extension headers, before anything reads ports."""
    version = flows.version
    key, later = FRAGMENT_KEY[version], LATER_FRAGMENT[version]
    rules = [
        Rule.of(
            f"{later} meta mark set {key} map @{flows.fragments} "
            f"counter name {FRAGMENTS} goto {flows.name('forward')}"
        ),
        # One whose first was not seen, or that is for the host: the host's own stack.
        Rule.of(f"{later} accept"),
    ]
    readable = "" if version == 4 else f"{READABLE} "
    if exact is not None:
        protocol = PROTOCOL[4] if version == 4 else "meta l4proto"
        fields = f"{IP[version]} daddr . {protocol} . th dport"
        rules.append(Rule.of(f"{readable}{fields} vmap @{exact}"))
    if readable:
        rules += [Rule.of(f"{readable}return"), Rule.of("accept")]
    return tuple(rules)


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


def _add(flows: Flows, protocol: Protocol) -> Rule:
    """Keeps a new flow and forwards it; comes back only when there is no room."""
    assert flows.tables is not None
    plain, table = PLAIN_HEADER[flows.version], flows.tables[protocol]
    tcp = protocol is Protocol.TCP
    match = f"{plain}meta l4proto {protocol.number}"
    life = flows.settings.tcp_half_open if tcp else flows.settings.udp
    # Adding to an entry that is there would not change its backend: but a flow only comes here
    # when none was found, or that was deleted.
    entry = f"{{ {FLOW_KEY[flows.version]} timeout {seconds(life)} : meta mark }}"
    return Rule.of(f"{match} add @{table} {entry} goto {flows.name('forward')}")


def _turn(flows: Flows) -> tuple[Rule, ...]:
    """A backend was chosen by turn; comes back when there is no room, to choose by hash.

    A flow without an entry goes by hash from its second packet on, so the first one must.
    """
    return (_keep(flows), *(_add(flows, protocol) for protocol in flows.tables or {}))


def _learn(flows: Flows, protocol: Protocol) -> tuple[Rule, ...]:
    plain, forward = PLAIN_HEADER[flows.version], f"goto {flows.name('forward')}"
    return (
        _add(flows, protocol),
        # Only reached when there is no room.
        Rule.of(f"{plain}counter name {TABLE_FULL} {forward}"),
        Rule.of(forward),
    )
