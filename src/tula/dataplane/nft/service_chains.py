"""The chains of each service: they choose a backend for its packets, and for ICMP errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.client_admission import ClientAdmission
from tula.dataplane.nft.client_chains import SYN, ClientChains
from tula.dataplane.nft.flow_maps import FlowMaps, then_forward
from tula.dataplane.nft.ids import BACKEND_BITS
from tula.dataplane.nft.numbered import NumberedService, NumberedState
from tula.dataplane.nft.packet_fields import (
    CLIENT,
    CLIENT_PORT,
    INNER,
    PLAIN_HEADER,
    Inner,
    client_key,
    masked,
    unfragmented,
)
from tula.dataplane.nft.ruleset import PER_PACKET, Chain, MapName, Rule
from tula.dataplane.nft.shared_chains import drop_of, if_first_fragment, lookup_jumps
from tula.dataplane.nft.shared_flows import RESET
from tula.model.config import Protocol
from tula.model.desired import NewFlows

_INNER_MATCHES_FIRST = {
    version: sorted(inner, key=lambda inner: not inner.match) for version, inner in INNER.items()
}
_ADDRESS_BITS = {4: 32, 6: 128}


@dataclass(frozen=True, slots=True)
class ServiceChains:
    """Builds the chains of services for one IP version."""

    version: int
    flows: FlowMaps
    state: NumberedState
    slots: Mapping[int, MapName]
    wrr: Mapping[int, MapName]
    shared: Collection[MapName]
    """Maps that several services use: they hold backend numbers, the others backend ids."""
    admission: ClientAdmission
    _jumps: dict[tuple[Protocol, ...], list[Rule]] = field(default_factory=dict)

    def service_chain(self, service: NumberedService, protocol: Protocol) -> str:
        """The chain of a service's packets."""
        if protocol in service.flow_protocols:
            return self._flow_chain(service)
        return f"{PER_PACKET}{self.version}.{service.name}"

    def _flow_chain(self, service: NumberedService) -> str:
        return f"service{self.version}.{service.name}"

    def icmp_chain(self, service: NumberedService, _: Protocol = Protocol.TCP) -> str:
        """The chain of ICMP errors about a service's packets."""
        return f"icmp{self.version}.{service.name}"

    def of(self, service: NumberedService) -> dict[str, Chain]:
        """The chains of one service."""
        chains = self.admission.chains(service, self.version)
        if service.per_packet:
            name = self.service_chain(service, Protocol.UDP)
            admitted = [*self._lists(service), *self._limits(service, (Protocol.UDP,))]
            rules = (*admitted, *self._each_packet(service), drop_of(service.name))
            chains[name] = Chain(rules)
        if service.flow_protocols:
            return chains | self._each_flow(service)
        if service.table is not None:
            chains[self.icmp_chain(service)] = Chain(self._icmp_rules(service, None))
        return chains

    def _lists(self, service: NumberedService) -> list[Rule]:
        """What the service's packets meet before all else."""
        return self.admission.lists(service, self.version)

    def _limits(self, service: NumberedService, protocols: tuple[Protocol, ...]) -> list[Rule]:
        """What those meet that begin a flow, before a backend is chosen."""
        return self.admission.limits(service, self.version, protocols)

    def _each_packet(self, service: NumberedService) -> tuple[Rule, ...]:
        """Every packet is scheduled by itself, but for the fragments of one datagram: they follow
        the first. No table holds the flow."""
        if service.table is None:
            return ()
        scheduled, forward = self._by_scheduler(service), self.flows.forward
        whole = unfragmented(self.version, Protocol.UDP.number)
        return (
            then_forward(self.flows, f"{whole}{scheduled}"),
            Rule.of(scheduled),
            if_first_fragment(self.flows),
            forward,
        )

    def _each_flow(self, service: NumberedService) -> dict[str, Chain]:
        """A flow stays with its backend; a new one is given one."""
        clients = self._clients_of(service)
        if clients is not None:
            return self._with_persistence(service, clients)
        rules = [*self._lookup_jumps(service.flow_protocols)]
        if service.table is None:
            return self._dropping(service, rules)
        choose = self._by_hash(service, self._hash_key(service))
        sharing = self.flows.sharing
        if sharing is not None and not sharing.all_flows:
            # What the hash gives is asked first: a flow that has another backend is an exception.
            rules = [Rule.of(f"{choose}{sharing.note_choice()}"), *rules, Rule.of(RESET)]
        rules += self._limits(service, service.flow_protocols)
        if service.choice is not NewFlows.HASH and self.flows.tables is not None:
            # New flows only: all other packets have an entry, or go by hash.
            scheduled = self._by_scheduler(service)
            then = f"{scheduled} jump {self.flows.name('try_learn')}"
            plain = PLAIN_HEADER[self.version]  # a flow that no table can store goes by hash
            rules += [
                Rule.of(f"{plain}{SYN} {then}"),
                Rule.of(f"{plain}meta l4proto 17 {then}"),
            ]
        rules += self._forward_chosen(service, choose)
        return {
            self._flow_chain(service): self._whole(service, rules),
            self.icmp_chain(service): Chain(self._icmp_rules(service, None)),
        }

    def _clients_of(self, service: NumberedService) -> ClientChains | None:
        """The rules by its clients' entries, if it remembers clients."""
        if self.flows.clients is None:
            return None
        size = self.state.connections.size
        clients = self.flows.clients.of(service, self.version, size)
        return None if clients is None else ClientChains(self.flows, service, clients)

    def _with_persistence(
        self, service: NumberedService, clients: ClientChains
    ) -> dict[str, Chain]:
        rules = [clients.known(), *self._lookup_jumps(service.flow_protocols)]
        limits = self._limits(service, service.flow_protocols)
        made = clients.chains()
        if service.table is None:
            # Backends that drain may still keep their clients.
            return made | self._dropping(service, [*rules, *limits, *clients.by_entry()])
        choose = self._by_hash(service, self._hash_key(service))
        hashed = service.choice is NewFlows.HASH
        sharing = self.flows.sharing
        if sharing is not None and not sharing.all_flows:
            if hashed:
                rules = [Rule.of(f"{choose}{sharing.note_choice()}"), *rules, Rule.of(RESET)]
            else:
                # The hash is no clue to where another balancer would send the client's next flow,
                # so it must know every flow: without a choice beside it, each is an exception.
                rules = [Rule.of(RESET), *rules]
        scheduled = "" if hashed else self._by_scheduler(service)
        rules += [*limits, *clients.by_entry(), *clients.choose(choose, scheduled)]
        return made | {
            self._flow_chain(service): self._whole(service, rules),
            self.icmp_chain(service): Chain(self._icmp_rules(service, clients)),
        }

    def _dropping(self, service: NumberedService, rules: list[Rule]) -> dict[str, Chain]:
        """Nobody takes new flows."""
        return {self._flow_chain(service): self._whole(service, rules)}

    def _whole(self, service: NumberedService, rules: list[Rule]) -> Chain:
        return Chain((*self._lists(service), *rules, drop_of(service.name)))

    def _hash_key(self, service: NumberedService) -> str:
        """What of a packet the hash is of."""
        bits = self._bits(service)
        if bits != _ADDRESS_BITS[self.version]:
            return client_key(self.version, bits)
        port = "" if service.by_client else f" . {CLIENT_PORT}"
        return f"{CLIENT[self.version]}{port}"

    def _bits(self, service: NumberedService) -> int:
        """As many of a client's address as tell clients apart."""
        scope = service.persistence
        return _ADDRESS_BITS[self.version] if scope is None else scope.settings.bits(self.version)

    def _lookup_jumps(self, protocols: tuple[Protocol, ...]) -> list[Rule]:
        """The same for all services of these protocols, so built once."""
        if protocols not in self._jumps:
            self._jumps[protocols] = lookup_jumps(self.flows, protocols)
        return self._jumps[protocols]

    def _icmp_rules(
        self, service: NumberedService, clients: ClientChains | None
    ) -> tuple[Rule, ...]:
        """By the hash of the flow inside; its forms that need a match come first."""
        rules = self.admission.icmp_lists(service, self.version)
        inners = _INNER_MATCHES_FIRST[self.version]
        if clients is not None:
            rules += [
                clients.by_inner_client(inner.match, self._inner_client(service, inner))
                for inner in inners
            ]
        for inner in inners:
            client = self._inner_client(service, inner)
            key = client if service.by_client else f"{client} . {inner.client_port}"
            choose = self._by_hash(service, key)
            rules.append(Rule.of(f"{inner.match}{choose} goto {self.flows.name('forward_icmp')}"))
        return tuple(rules)

    def _inner_client(self, service: NumberedService, inner: Inner) -> str:
        return masked(inner.client, self.version, self._bits(service))

    def _forward_chosen(self, service: NumberedService, choose: str) -> list[Rule]:
        """Chooses and forwards; without flow tables most packets are forwarded at once."""
        chosen = Rule.of(f"{choose} jump {self.flows.name('backend_chosen')}")
        if self.flows.tables is not None:
            return [chosen]
        protocols = service.flow_protocols
        numbers = ", ".join(str(protocol.number) for protocol in protocols)
        listed = f"{{ {numbers} }}" if len(protocols) > 1 else numbers
        no_fragment = "@nh,48,16 & 0x2000 == 0" if self.version == 4 else f"ip6 nexthdr {listed}"
        forward = self.flows.forward
        text = f"{no_fragment} {choose}"
        at_once = Rule(Rule.of(text, forward.digest).digest, f"{text} {forward.text}")
        return [at_once, chosen]

    def _by_hash(self, service: NumberedService, key: str) -> str:
        assert service.table is not None
        slots = self.slots[service.table]
        seed = f"{self.state.seed:#x}"
        return self._mark(service, f"jhash {key} mod {slots.size} seed {seed}", slots)

    def _by_scheduler(self, service: NumberedService) -> str:
        if service.choice is NewFlows.RANDOM:
            assert service.table is not None
            slots = self.slots[service.table]
            return self._mark(service, f"numgen random mod {slots.size}", slots)
        assert service.wrr is not None
        wrr = self.wrr[service.wrr]
        return self._mark(service, f"numgen inc mod {wrr.size}", wrr)

    def _mark(self, service: NumberedService, number: str, table: MapName) -> str:
        text = f"meta mark set {number} map @{table}"
        if table not in self.shared:
            return text
        # The service's number above the backend's: services with equal backends share a map and
        # still count separately. nft 1.0.6 has no form for "map ... | number" in one statement.
        own = f"{service.number << BACKEND_BITS:#x}"
        return f"{text} meta mark set meta mark | {own}"
