"""The chains of each service: they choose a backend, for its packets and for ICMP errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.ids import BACKEND_BITS
from tula.dataplane.nft.numbered import NumberedService as DesiredService
from tula.dataplane.nft.numbered import NumberedState as DesiredState
from tula.dataplane.nft.ruleset import Chain, MapName, Rule
from tula.dataplane.nft.shared_chains import DROP, Flows, known_jumps
from tula.dataplane.nft.words import INNER, IP, PLAIN_HEADER
from tula.model.config import Protocol
from tula.model.desired import NewFlows as Choice

_STEERED = {
    version: sorted(inner, key=lambda inner: not inner.match) for version, inner in INNER.items()
}
_SYN = "tcp flags & (fin|syn|rst|ack) == syn"


@dataclass(frozen=True, slots=True)
class ServiceChains:
    """Makes the chains of services of one IP version."""

    version: int
    flows: Flows
    state: DesiredState
    slots: Mapping[int, MapName]
    turns: Mapping[int, MapName]
    shared: Collection[MapName]
    """Tables of several services: they hold backend numbers, the others backend ids."""
    _jumps: dict[tuple[Protocol, ...], list[Rule]] = field(default_factory=dict)

    def service_chain(self, service: DesiredService) -> str:
        """The chain of a service's packets."""
        return f"svc{self.version}.{service.name}"

    def icmp_chain(self, service: DesiredService) -> str:
        """The chain of ICMP errors about a service's packets."""
        return f"icmp{self.version}.{service.name}"

    def of(self, service: DesiredService) -> dict[str, Chain]:
        """The chains of one service."""
        name = self.service_chain(service)
        rules = [*self._known_jumps(service.protocols)]
        if service.table is None:
            return {name: Chain((*rules, DROP))}
        ip = IP[self.version]
        port = "" if service.by_client else " . th sport"
        choose = self._by_hash(service, f"{ip} saddr{port}")
        if service.choice is not Choice.HASH and self.flows.tables is not None:
            # Only what begins takes its turn: the rest has its entry, or goes by hash.
            turn = self._by_turn(service)
            then = f"{turn} jump {self.flows.name('turn')}"
            plain = PLAIN_HEADER[self.version]  # what no table holds goes by hash, all of it
            rules += [
                Rule.of(f"{plain}{_SYN} {then}"),
                Rule.of(f"{plain}meta l4proto 17 {then}"),
            ]
        rules += self._then(service, choose)
        return {
            name: Chain((*rules, DROP)),
            self.icmp_chain(service): Chain(self._steer(service)),
        }

    def _known_jumps(self, protocols: tuple[Protocol, ...]) -> list[Rule]:
        """The same for all services of these protocols, so made once."""
        if protocols not in self._jumps:
            self._jumps[protocols] = known_jumps(self.flows, protocols)
        return self._jumps[protocols]

    def _steer(self, service: DesiredService) -> tuple[Rule, ...]:
        """By the hash of the flow inside; its forms that need a match come first."""
        rules = []
        for inner in _STEERED[self.version]:
            key = inner.client if service.by_client else f"{inner.client} . {inner.client_port}"
            choose = self._by_hash(service, key)
            rules.append(Rule.of(f"{inner.match}{choose} goto {self.flows.name('steer')}"))
        return tuple(rules)

    def _then(self, service: DesiredService, choose: str) -> list[Rule]:
        """What follows a choice; without flow tables most packets are forwarded at once."""
        chosen = Rule.of(f"{choose} goto {self.flows.name('chosen')}")
        if self.flows.tables is not None:
            return [chosen]
        numbers = ", ".join(str(protocol.number) for protocol in service.protocols)
        listed = f"{{ {numbers} }}" if len(service.protocols) > 1 else numbers
        usual = "ip frag-off & 0x2000 == 0" if self.version == 4 else f"ip6 nexthdr {listed}"
        forward = self.flows.forward
        text = f"{usual} {choose}"
        at_once = Rule(Rule.of(text, forward.digest).digest, f"{text} {forward.text}")
        return [at_once, chosen]

    def _by_hash(self, service: DesiredService, key: str) -> str:
        assert service.table is not None
        slots = self.slots[service.table]
        seed = f"{self.state.seed:#x}"
        return self._mark(service, f"jhash {key} mod {slots.size} seed {seed}", slots)

    def _by_turn(self, service: DesiredService) -> str:
        if service.choice is Choice.RANDOM:
            assert service.table is not None
            slots = self.slots[service.table]
            return self._mark(service, f"numgen random mod {slots.size}", slots)
        assert service.turns is not None
        turns = self.turns[service.turns]
        return self._mark(service, f"numgen inc mod {turns.size}", turns)

    def _mark(self, service: DesiredService, number: str, table: MapName) -> str:
        text = f"meta mark set {number} map @{table}"
        if table not in self.shared:
            return text
        # The service's number above the backend's: services with equal backends share a table
        # and still count apart. nft 1.0.6 has no form for "map ... | number" in one statement.
        own = f"{service.number << BACKEND_BITS:#x}"
        return f"{text} meta mark set meta mark | {own}"
