"""The rules of services with persistence: a packet that is not hot looks its client up.

::

    service4.web
      ├─ a known client ▶ known4.web: its entry is kept for longer; comes back
      ├─ lookup_tcp4: a known flow goes its way, whatever its client's entry says
      ├─ a known client whose backend is in keeps_clients ▶ backend_chosen4
      ├─ its client's entry goes: there is none, or its backend takes no clients any more
      └─ mark = what the scheduler chooses ▶ remember4.web: an entry; ▶ backend_chosen4

Flows are learned as ever, so a live flow never moves. All packets of a flow that no table could
store agree as well: by its client's entry, or without one by the hash of the client's address.

A SYN alone, which anybody can send in anybody's name, makes an entry that lives no longer than a
half-open connection, and prolongs none.
"""

from __future__ import annotations

from tula.dataplane.nft.client_maps import CLIENTS_FULL, ClientMap, learning_chain
from tula.dataplane.nft.flow_maps import FlowMaps, with_hot
from tula.dataplane.nft.numbered import NumberedService
from tula.dataplane.nft.packet_fields import FLOW_KEY, PLAIN_HEADER
from tula.dataplane.nft.ruleset import Chain, Rule
from tula.model.config import Protocol

SYN = "tcp flags & (fin|syn|rst|ack) == syn"
_ACK = "tcp flags & (fin|syn|rst|ack) == ack"
_ENDS = "tcp flags & (fin|rst) != 0"


class ClientChains:
    """Those of one service, for one IP version."""

    def __init__(self, flows: FlowMaps, service: NumberedService, clients: ClientMap) -> None:
        self._flows = flows
        self._service = service
        self._clients = clients
        assert flows.clients is not None
        self._keep = flows.clients.keep_match()

    def _named(self, part: str) -> str:
        return f"{self._flows.name(part)}.{self._service.name}"

    def known(self) -> Rule:
        """Before flows are looked up."""
        found = f"meta mark set {self._clients.key} map @{self._clients.name}"
        return Rule.of(f"{found} jump {self._named('known')}")

    def by_entry(self) -> list[Rule]:
        """For a new flow: the backend that its client has; without one, comes back."""
        chosen = f"jump {self._flows.name('backend_chosen')}"
        return [
            Rule.of(f"{self._clients.look_up()} {self._keep}{chosen}"),
            Rule.of(self._clients.forget()),
        ]

    def choose(self, by_hash: str, scheduled: str) -> list[Rule]:
        """For a client without an entry; ``scheduled`` is empty where the hash is the scheduler."""
        remember = f"jump {self._named('remember')}"
        chosen = f"jump {self._flows.name('backend_chosen')}"
        if not scheduled:
            return [Rule.of(f"{by_hash} {remember}"), Rule.of(chosen)]
        plain, learn = PLAIN_HEADER[self._flows.version], f"jump {self._flows.name('try_learn')}"
        rules = []
        for protocol, match in ((Protocol.TCP, SYN), (Protocol.UDP, "meta l4proto 17")):
            if protocol in self._service.flow_protocols:
                # It comes back when the map of clients is full: then the flow must be remembered.
                rules.append(Rule.of(f"{match} {scheduled} {remember}"))
                rules.append(Rule.of(f"{plain}{match} {learn}"))
        if Protocol.TCP in self._service.flow_protocols:
            rules.append(Rule.of(f"{_ACK} {by_hash} {remember}"))
        return [*rules, Rule.of(f"{by_hash} {chosen}")]

    def by_inner_client(self, match: str, key: str) -> Rule:
        """For the packet inside an ICMP error, whose flow is not known."""
        forward = f"goto {self._flows.name('forward_icmp')}"
        return Rule.of(f"{match}{self._clients.look_up(key)} {self._keep}{forward}")

    def chains(self) -> dict[str, Chain]:
        """The chains that the rules above name, and the one that learns from other balancers."""
        made = {
            self._named("known"): Chain(self._known()),
            self._named("remember"): Chain(self._remember()),
        }
        if self._flows.sharing is not None:
            name = learning_chain(self._flows.version, self._service.name)
            made[name] = Chain(self._learn())
        return made

    def _life(self, protocol: Protocol) -> float:
        """Seconds from a packet of a live flow: the next one that passes here comes in time."""
        settings = self._flows.settings
        flow = settings.tcp if protocol is Protocol.TCP else settings.udp
        return max(self._clients.timeout, with_hot(flow))

    def _syn_life(self) -> float:
        return min(self._clients.timeout, self._flows.settings.tcp_half_open)

    def _known(self) -> tuple[Rule, ...]:
        clients, rules = self._clients, []
        if Protocol.TCP in self._service.flow_protocols:
            rules += [
                Rule.of(f"{SYN} return"),
                Rule.of(f"{_ENDS} {clients.update(clients.timeout)} return"),
                self._closed(),
                Rule.of(f"meta l4proto 6 {clients.update(self._life(Protocol.TCP))}"),
            ]
        if Protocol.UDP in self._service.flow_protocols:
            rules.append(Rule.of(f"meta l4proto 17 {clients.update(self._life(Protocol.UDP))}"))
        return tuple(rules)

    def _closed(self) -> Rule:
        """The last ACK of a connection is no sign of life."""
        version = self._flows.version
        closed = f"meta mark set {FLOW_KEY[version]} map @{self._flows.closed}"
        # The mark is the entry's backend again: an update that makes an entry would store it.
        held = f"meta mark set {self._clients.key} map @{self._clients.name}"
        then = f"{self._clients.update(self._clients.timeout)} return"
        return Rule.of(f"{PLAIN_HEADER[version]}meta l4proto 6 {closed} {held} {then}")

    def _remember(self) -> tuple[Rule, ...]:
        """Comes back when the map is full, and for packets that say nothing of a new flow."""
        clients = self._clients
        # Another processor may have remembered the client meanwhile: what is held counts.
        then = f"{clients.look_up()} goto {self._flows.name('backend_chosen')}"
        rules, full = [], f"counter name {CLIENTS_FULL}"
        if Protocol.TCP in self._service.flow_protocols:
            rules += [
                Rule.of(f"{SYN} {clients.add(self._syn_life())} {then}"),
                Rule.of(f"{_ACK} {clients.add(clients.timeout)} {then}"),
            ]
        if Protocol.UDP in self._service.flow_protocols:
            rules.append(Rule.of(f"meta l4proto 17 {clients.add(clients.timeout)} {then}"))
        if Protocol.TCP in self._service.flow_protocols:
            rules += [Rule.of(f"{SYN} {full}"), Rule.of(f"{_ACK} {full}")]
        if Protocol.UDP in self._service.flow_protocols:
            rules.append(Rule.of(f"meta l4proto 17 {full}"))
        return tuple(rules)

    def _learn(self) -> tuple[Rule, ...]:
        """From a clone, whose mark is the flow's backend. Whoever sent it has dealt with it, so an
        entry of another backend is replaced; by a SYN it is not, which the ACK corrects."""
        clients = self._clients
        then = f"goto {self._flows.name('learn_shared')}"
        rules = []

        def learned(match: str, life: float) -> Rule:
            return Rule.of(f"{match} {clients.forget()} {clients.add(life)} {then}")

        if Protocol.TCP in self._service.flow_protocols:
            rules += [
                Rule.of(f"{SYN} {clients.add(self._syn_life())} {then}"),
                learned(_ENDS, clients.timeout),
                learned("meta l4proto 6", self._life(Protocol.TCP)),
            ]
        if Protocol.UDP in self._service.flow_protocols:
            rules.append(learned("meta l4proto 17", self._life(Protocol.UDP)))
        return (*rules, Rule.of(f"counter name {CLIENTS_FULL} {then}"))
