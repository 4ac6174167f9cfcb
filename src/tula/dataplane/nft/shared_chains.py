"""The chains that all services share, by IP version: forwarding, flows, fragments, ICMP errors.

A packet whose flow is in a flow table goes ``lookup_* → hit_*``. One of a new flow comes back to
its service's chain and goes ``backend_chosen → learn_* → forward``, as does one whose entry turns
out to be stale. Marks are only ever set on packets that are for a service.

Most packets skip all of this. Refreshing an entry costs as much as the rest of a packet's path, so
a flow that was refreshed is put into a hot table for a short while, and the base chain forwards
what it finds there at once. Each entry lives that much longer.
"""

from __future__ import annotations

from tula.dataplane.nft.flow_maps import (
    CLOSING,
    TABLE_FULL,
    UNMARK,
    FlowMaps,
    closed_entry,
    forget,
    forget_closed,
    keep_sampled,
    refresh,
    refresh_hot,
    seconds,
    stale_rule,
    then_forward,
    with_hot,
)
from tula.dataplane.nft.packet_fields import (
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
    unfragmented,
)
from tula.dataplane.nft.ruleset import Chain, MapName, Rule
from tula.dataplane.nft.shared_flows import RESET
from tula.dataplane.nft.sharing_chains import learn_chains, tell_chains
from tula.model.config import Protocol
from tula.model.stats import DENIED, LIMITED, NO_BACKEND

FRAGMENTS = "fragments"
"""Later fragments that followed the first one of their datagram."""
ICMP_STEERED = "icmp_steered"
"""ICMP errors that went to the backend of the flow inside."""
COUNTERS = frozenset({NO_BACKEND, TABLE_FULL, FRAGMENTS, ICMP_STEERED})

FRAGMENT_LIFE = 30
"""Seconds that later fragments find their backend, as long as Linux reassembles (ipfrag_time)."""

DROP = Rule.of(f"counter name {NO_BACKEND} drop")
"""For what is not known to be a certain service's: fragments, ICMP errors."""


def no_backend_counter(service: str) -> str:
    """Counts the packets of one service that no backend could take."""
    return f"{NO_BACKEND}.{service}"


def counted_for(counter: str) -> tuple[str, str] | None:
    """What such a counter counts, and the service; None for any other counter."""
    what, _, service = counter.partition(".")
    return (what, service) if what in (NO_BACKEND, DENIED, LIMITED) and service else None


def drop_of(service: str) -> Rule:
    """Where a service's packets end that no backend could take."""
    return Rule.of(f"counter name {no_backend_counter(service)} drop")


def shared_chains(flows: FlowMaps, by_port: MapName | None) -> dict[str, Chain]:
    """All of them, by name; ``by_port`` is the dispatch by single ports, if there is one."""
    chains = {
        # Comes back to the service's chain when the backend has left: it counts and drops there.
        flows.name("forward"): Chain((flows.forward,)),
        flows.name("forward_fragment"): Chain((flows.forward, DROP)),
        flows.name("forward_icmp"): Chain((_counted(flows, ICMP_STEERED), DROP)),
        flows.name("fragment"): Chain(_fragment(flows, by_port)),
        flows.name("learn_fragment"): Chain(_learn_fragment(flows)),
        flows.name("backend_chosen"): Chain(_backend_chosen(flows)),
    }
    if flows.tables is not None:
        chains |= _sample_chains(flows) | {
            flows.name("hit_tcp"): Chain(_hit_tcp(flows)),
            flows.name("control_tcp"): Chain(_control_tcp(flows)),
            flows.name("hit_udp"): Chain(_hit(flows, Protocol.UDP, flows.settings.udp)),
            flows.name("lookup_tcp"): Chain(_lookup(flows, Protocol.TCP)),
            flows.name("lookup_udp"): Chain(_lookup(flows, Protocol.UDP)),
            flows.name("learn_tcp"): Chain(_learn(flows, Protocol.TCP)),
            flows.name("learn_udp"): Chain(_learn(flows, Protocol.UDP)),
            flows.name("hit_closed"): Chain(_hit_closed(flows)),
            flows.name("try_forward_icmp"): Chain((_counted(flows, ICMP_STEERED), Rule.of(UNMARK))),
        }
        if flows.try_learn:
            chains[flows.name("try_learn")] = Chain(_try_learn(flows))
        if flows.sharing is not None:
            chains |= tell_chains(flows, flows.sharing) | learn_chains(flows, flows.sharing)
    return chains


def hot_rule(flows: FlowMaps, protocol: Protocol, guard: str) -> Rule:
    """Forwards a packet whose flow is hot; any other goes on with its mark unchanged.

    If the backend has left, the rule breaks: the packet goes on with a mark, and gets another one
    in its service's chain. When the service leaves too, the hot tables are emptied.
    """
    # FIN, SYN and RST are the low three bits of the flags (RFC 9293, section 3.1).
    no_flags = "@th,104,8 & 0x07 == 0 " if protocol is Protocol.TCP else ""
    match = f"{unfragmented(flows.version, protocol.number)}{guard}{no_flags}"
    key = HOT_KEY[flows.version]
    return then_forward(flows, f"{match}meta mark set {key} map @{flows.hot[protocol]}")


def lookup_jumps(flows: FlowMaps, protocols: tuple[Protocol, ...]) -> list[Rule]:
    """Where a service looks up its packets' flows, before it chooses a backend."""
    if flows.tables is None:
        return []
    which = {p: f"meta l4proto {p.number} " if len(protocols) > 1 else "" for p in protocols}
    return [Rule.of(f"{which[p]}jump {flows.name(f'lookup_{p}')}") for p in protocols]


def _lookup(flows: FlowMaps, protocol: Protocol) -> tuple[Rule, ...]:
    assert flows.tables is not None
    found = f"meta mark set {FLOW_KEY[flows.version]} map @{flows.tables[protocol]}"
    return (Rule.of(f"{PLAIN_HEADER[flows.version]}{found} goto {flows.name(f'hit_{protocol}')}"),)


def inner_lookups(flows: FlowMaps) -> list[Rule]:
    """Finds the flow inside an ICMP error."""
    if flows.tables is None:
        return []
    return [
        Rule.of(
            f"{inner.match}{inner.protocol} {protocol.number} "
            f"meta mark set {inner.key} map @{table} jump {flows.name('try_forward_icmp')}"
        )
        for inner in INNER[flows.version]
        for protocol, table in (*flows.tables.items(), (Protocol.TCP, flows.closed))
    ]


def _counted(flows: FlowMaps, counter: str) -> Rule:
    return Rule(flows.forward.digest + counter, f"counter name {counter} {flows.forward.text}")


def _hit(flows: FlowMaps, protocol: Protocol, life: float) -> tuple[Rule, ...]:
    sharing, keep_hot = flows.sharing, refresh_hot(flows, protocol, life)
    # Where the rules end that are only reached when the hot table is full, or the backend has left.
    ends = (flows.forward, stale_rule(flows, protocol))
    begins = (if_first_fragment(flows), *keep_sampled(flows, life))
    if sharing is None:
        return (*begins, then_forward(flows, keep_hot), *ends)
    # A flow that its large packet cannot tell of does not get hot: its next small one does.
    keep = f"meta length > {sharing.largest} {refresh(flows, protocol, with_hot(life))}"
    # Others are told once for each time that the flow gets hot, and not while that table is full.
    tell = f"{keep_hot} goto {flows.name(f'told_{protocol}')}"
    if sharing.all_flows:
        too_large = (then_forward(flows, keep),) if sharing.largest else ()
        return (*begins, *too_large, Rule.of(tell), *ends)
    too_large = (then_forward(flows, f"{keep} {RESET}"),) if sharing.largest else ()
    return (
        *begins,
        then_forward(flows, f"{sharing.as_hashed_match()}{keep_hot} {RESET}"),
        *too_large,
        Rule.of(f"{sharing.exception_match()}{RESET} {tell}"),
        Rule.of(RESET),
        *ends,
    )


def _hit_tcp(flows: FlowMaps) -> tuple[Rule, ...]:
    control = Rule.of(f"@th,104,8 & 0x07 != 0 goto {flows.name('control_tcp')}")
    return (control, *_hit(flows, Protocol.TCP, flows.settings.tcp))


def _control_tcp(flows: FlowMaps) -> tuple[Rule, ...]:
    """SYN, FIN or RST of a known flow."""
    ends = "tcp flags & (fin|rst) != 0"
    # The client's ACK of the last FIN looks like any other and would keep a closed connection for
    # as long as an open one. So the flow moves to a table of its own, where an ACK keeps it for a
    # short time only.
    move = f"add @{flows.closed} {closed_entry(flows)} {forget(flows, Protocol.TCP)}"
    unsampled = "" if flows.sample is None else f" {flows.sample.forget()}"
    tell: tuple[Rule, ...] = ()
    if flows.sharing is not None:
        match = flows.sharing.exception_match()
        tell = (Rule.of(f"{ends} {match}jump {flows.name('tell')}"),)
        if match:
            tell += (Rule.of(RESET),)
    return (
        if_first_fragment(flows),
        *tell,
        # The client reuses its port, and the backend accepts no new flows: choose another one.
        Rule.of(
            f"tcp flags & (fin|syn|rst|ack) == syn meta mark != @{flows.accepting} "
            f"{forget(flows, Protocol.TCP)} {UNMARK} return"
        ),
        then_forward(flows, f"{ends} {forget_closed(flows)} {move}"),
        # Only reached when the table of closed connections is full.
        then_forward(flows, f"{ends} {refresh(flows, Protocol.TCP, CLOSING)}{unsampled}"),
        flows.forward,
        Rule.of(forget_closed(flows)),
        stale_rule(flows, Protocol.TCP),
    )


def _hit_closed(flows: FlowMaps) -> tuple[Rule, ...]:
    """The last packets of a connection, and the ACKs of a client that only receives."""
    return (
        if_first_fragment(flows),
        then_forward(flows, f"update @{flows.closed} {closed_entry(flows)}"),
        Rule.of(forget_closed(flows)),
    )


def _fragment(flows: FlowMaps, by_port: MapName | None) -> tuple[Rule, ...]:
    """Fragments, and packets with extension headers, before anything reads ports."""
    version = flows.version
    key, later = FRAGMENT_KEY[version], LATER_FRAGMENT[version]
    rules = [
        Rule.of(
            f"{later} meta mark set {key} map @{flows.fragments} "
            f"counter name {FRAGMENTS} goto {flows.name('forward_fragment')}"
        ),
        # Its first fragment was not seen, or it is not for a service: the host's own stack.
        Rule.of(f"{later} accept"),
    ]
    readable = "" if version == 4 else f"{READABLE} "
    if by_port is not None:
        protocol = PROTOCOL[4] if version == 4 else "meta l4proto"
        fields = f"{IP[version]} daddr . {protocol} . th dport"
        rules.append(Rule.of(f"{readable}{fields} vmap @{by_port}"))
    if readable:
        rules += [Rule.of(f"{readable}return"), Rule.of("accept")]
    return tuple(rules)


def if_first_fragment(flows: FlowMaps) -> Rule:
    """Remembers where a datagram goes whose first fragment this is; comes back."""
    return Rule.of(f"{FIRST_FRAGMENT[flows.version]} jump {flows.name('learn_fragment')}")


def _learn_fragment(flows: FlowMaps) -> tuple[Rule, ...]:
    """The datagram's other fragments must follow this one."""
    key = FRAGMENT_KEY[flows.version]
    life = seconds(FRAGMENT_LIFE)
    return (
        # An update would keep the backend of an existing entry, and a client's datagrams repeat
        # their identification after 65,536: delete first.
        Rule.of(f"delete @{flows.fragments} {{ {key} : meta mark }}"),
        Rule.of(f"update @{flows.fragments} {{ {key} timeout {life} : meta mark }} return"),
        # Only reached when the table is full.
        Rule.of(f"counter name {TABLE_FULL}"),
    )


def _backend_chosen(flows: FlowMaps) -> tuple[Rule, ...]:
    """The service has chosen a backend: learn what is new, then forward."""
    rules = [if_first_fragment(flows)]
    if flows.tables is not None:
        # Without a SYN it is the middle of a connection that went by hash so far, or one that the
        # table has lost (a flush, another balancer's): learned too, so that the next change of the
        # backends leaves it alone. The last packets of a connection, and what is too short to
        # tell, go by hash and are not learned.
        rules += [
            Rule.of(f"tcp flags & (fin|syn|rst|ack) == syn goto {flows.name('learn_tcp')}"),
            Rule.of(f"meta l4proto 17 goto {flows.name('learn_udp')}"),
            Rule.of(
                f"{PLAIN_HEADER[flows.version]}meta l4proto 6 "
                f"meta mark set {FLOW_KEY[flows.version]} map @{flows.closed} "
                f"goto {flows.name('hit_closed')}"
            ),
            _add(flows, Protocol.TCP, "tcp flags & (fin|syn|rst|ack) == ack "),
        ]
    # A full table is counted for new flows alone, and not for each packet of others.
    return (*rules, Rule.of(f"goto {flows.name('forward')}"))


def _add(flows: FlowMaps, protocol: Protocol, flags: str = "") -> Rule:
    """Stores a new flow and forwards it; comes back only when the table is full."""
    assert flows.tables is not None
    plain, table = PLAIN_HEADER[flows.version], flows.tables[protocol]
    tcp = protocol is Protocol.TCP
    match = f"{plain}meta l4proto {protocol.number} {flags}"
    life = flows.settings.tcp_half_open if tcp else flows.settings.udp
    # Adding would not change the backend of an existing entry. But a flow only comes here when it
    # has no entry, or its entry was deleted.
    entry = f"{{ {FLOW_KEY[flows.version]} timeout {seconds(life)} : meta mark }}"
    then = _then_learned(flows) if flows.sample is None else flows.name(f"sample_{protocol}")
    return Rule.of(f"{match}add @{table} {entry} goto {then}")


def _then_learned(flows: FlowMaps) -> str:
    tell = flows.sharing is not None and flows.sharing.all_flows
    return flows.name("tell_new" if tell else "forward")


def _sample_chains(flows: FlowMaps) -> dict[str, Chain]:
    """A new flow has an entry: it has one in the sample too, if it is of it."""
    if flows.sample is None:
        return {}
    lives = {Protocol.TCP: flows.settings.tcp_half_open, Protocol.UDP: flows.settings.udp}
    then = Rule.of(f"goto {_then_learned(flows)}")
    return {
        flows.name(f"sample_{protocol}"): Chain((Rule.of(flows.sample.begin(seconds(life))), then))
        for protocol, life in lives.items()
    }


def _try_learn(flows: FlowMaps) -> tuple[Rule, ...]:
    """A backend was chosen otherwise than by hash; comes back when the table is full.

    Then the service chooses by hash: without an entry the flow's second packet goes by hash, so
    the first one must too.
    """
    return (if_first_fragment(flows), *(_add(flows, protocol) for protocol in flows.tables or {}))


def _learn(flows: FlowMaps, protocol: Protocol) -> tuple[Rule, ...]:
    plain, forward = PLAIN_HEADER[flows.version], f"goto {flows.name('forward')}"
    return (
        _add(flows, protocol),
        # Only reached when the table is full.
        Rule.of(f"{plain}counter name {TABLE_FULL} {forward}"),
        Rule.of(forward),
    )
