"""Who may connect to a service, and how fast: its lists of prefixes, and limits on new flows.

::

    service4.web
      ├─ the client is in deny4_1, or not in allow4_1: refused         one look-up a list
      ├─ lookup_tcp4 ...                                               flows that are known
      ├─ a SYN, or UDP ▶ limit4.web: the client's own limit, then limit.web: that of all clients;
      │                              too many: refused
      └─ a backend is chosen

None of it is on the way of a hot flow. Refused is dropped, or let into the machine's stack with
REFUSED_MARK: the table REFUSALS answers it there (``reject`` needs a module at the ingress that
Debian's 6.1 does not have). Services with equal lists share their sets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tula.dataplane.nft.numbered import NumberedService, NumberedState
from tula.dataplane.nft.own_stack import REFUSED_MARK
from tula.dataplane.nft.packet_fields import CLIENT_FIELD, CLIENT_GROUP, INNER
from tula.dataplane.nft.ruleset import Chain, Elements, Kind, MapName, Rule, Ruleset
from tula.model.admission import Admission, Refusal
from tula.model.config import Protocol
from tula.model.stats import DENIED, LIMITED

_ALLOW = {4: Kind.ALLOW4, 6: Kind.ALLOW6}
_DENY = {4: Kind.DENY4, 6: Kind.DENY6}
_CLIENT_RATE = {4: Kind.CLIENT_RATE4, 6: Kind.CLIENT_RATE6}
_RATE_LIFE = 3000
"""Milliseconds that a client is remembered after its last new flow: its limit is whole again after
one second, so that nothing is forgotten too early."""
_CLIENTS = 65536
"""Clients of one service, and IP version, that a limit can be kept for at a time."""
_SYN = "tcp flags & (fin|syn|rst|ack) == syn"
RESETS = 1000
"""Refused packets of all services that are answered in a second: whoever forges the addresses of
others must not have the balancer flood those."""


def refusal_rules() -> tuple[Rule, ...]:
    """The rules of REFUSALS."""
    mine = f"meta mark {REFUSED_MARK:#x} "
    return (
        Rule.of(f"{mine}limit rate over {RESETS}/second burst {RESETS} packets drop"),
        Rule.of(f"{mine}meta l4proto 6 reject with tcp reset"),
        Rule.of(f"{mine}reject with icmpx type port-unreachable"),
    )


def refuses_more(have: Ruleset, want: Ruleset) -> bool:
    """Whether some client may not connect any more that could so far."""
    for text, elements in want.maps.items():
        name = MapName.parse(text)
        held = have.maps.get(text)
        if name is None or not name.kind.prefixes or held is None or held is elements:
            continue
        more, fewer = (elements, held) if name.kind in _DENY.values() else (held, elements)
        if more.keys() - fewer.keys():
            return True
    counted = f"counter name {DENIED}."
    for text, chain in want.chains.items():
        old = have.chains.get(text)
        if old is not None and old.rules != chain.rules:
            known = {rule.digest for rule in old.rules}
            if any(counted in rule.text and rule.digest not in known for rule in chain.rules):
                return True
    return False


@dataclass
class ClientAdmission:
    """The sets and rules for all services of a state; nothing for services that admit everybody."""

    maps: dict[str, Elements] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)
    resets: bool = False
    """Whether some service's refused packets are answered."""
    _names: dict[tuple[Kind, int], MapName] = field(default_factory=dict)
    """By kind and the service's number."""

    @classmethod
    def of(cls, state: NumberedState) -> ClientAdmission:
        """What the services of a state need."""
        made = cls()
        sets: dict[tuple[Kind, tuple[int, ...]], MapName] = {}
        # By number: so the set that several share keeps its name while the first of them stays.
        for service in sorted(state.services, key=lambda service: service.number):
            admission = service.admission
            if admission is None:
                continue
            made.resets = made.resets or admission.refusal is Refusal.RESET
            if admission.allow is not None or admission.deny:
                made.counters.add(f"{DENIED}.{service.name}")
            if admission.limits.new_per_second or admission.limits.per_client:
                made.counters.add(f"{LIMITED}.{service.name}")
            for version in (4, 6):
                if service.packed_vips(version):
                    made._add_sets(service, admission, version, sets)
        return made

    def _add_sets(
        self,
        service: NumberedService,
        admission: Admission,
        version: int,
        sets: dict[tuple[Kind, tuple[int, ...]], MapName],
    ) -> None:
        lists = ((_DENY[version], admission.deny), (_ALLOW[version], admission.allow))
        for kind, prefixes in lists:
            keys = prefixes.keys(version) if prefixes is not None else ()
            if keys:
                name = sets.setdefault((kind, keys), MapName(kind, 0, service.number))
                self._names[kind, service.number] = name
                if str(name) not in self.maps:
                    self.maps[str(name)] = dict.fromkeys(keys)
        if admission.limits.per_client:
            name = MapName(_CLIENT_RATE[version], _CLIENTS, service.number)
            self._names[name.kind, service.number] = name
            self.maps[str(name)] = {}

    def lists(self, service: NumberedService, version: int) -> list[Rule]:
        """What a service's packets meet first."""
        if service.admission is None:
            return []
        refused = _refused(service.name, service.admission, DENIED)
        return self._unlisted(service, version, CLIENT_FIELD[version], "", refused)

    def icmp_lists(self, service: NumberedService, version: int) -> list[Rule]:
        """The same for ICMP errors about flows that are not known, by the client inside. Nothing
        answers an ICMP error (RFC 1122, section 3.2.2)."""
        refused = f"counter name {DENIED}.{service.name} drop"
        return [
            rule
            for inner in INNER[version]
            for rule in self._unlisted(service, version, inner.client, inner.match, refused)
        ]

    def _unlisted(
        self, service: NumberedService, version: int, client: str, match: str, refused: str
    ) -> list[Rule]:
        admission = service.admission
        if admission is None:
            return []
        rules = []
        denied = self._names.get((_DENY[version], service.number))
        if denied is not None:
            rules.append(Rule.of(f"{match}{client} @{denied} {refused}"))
        if admission.allow is not None:
            allowed = self._names.get((_ALLOW[version], service.number))
            nobody = f"{match}{refused}" if allowed is None else ""
            rules.append(Rule.of(nobody or f"{match}{client} != @{allowed} {refused}"))
        return rules

    def limits(
        self, service: NumberedService, version: int, protocols: tuple[Protocol, ...]
    ) -> list[Rule]:
        """What a service's packets meet whose flow is not known, before a backend is chosen.

        What is in the middle of a connection passes: there is nothing new about it.
        """
        if not self._limited(service):
            return []
        chain = _limit_chain(service, version)
        match = {Protocol.TCP: f"{_SYN} ", Protocol.UDP: "meta l4proto 17 "}
        return [Rule.of(f"{match[protocol]}jump {chain}") for protocol in protocols]

    def chains(self, service: NumberedService, version: int) -> dict[str, Chain]:
        """The chains that those rules lead to."""
        if service.admission is None or not self._limited(service):
            return {}
        limits = service.admission.limits
        refused = _refused(service.name, service.admission, LIMITED)
        chains: dict[str, Chain] = {}
        rules = []
        if limits.per_client:
            # Without room for another client the rule breaks, and the flow is taken.
            rate = f"limit rate over {limits.per_client}/second burst {limits.per_client} packets"
            name = self._names[_CLIENT_RATE[version], service.number]
            entry = f"{{ {CLIENT_GROUP[version]} timeout {_RATE_LIFE}ms {rate} }}"
            rules.append(Rule.of(f"update @{name} {entry} {refused}"))
        if limits.new_per_second:
            most = limits.new_per_second
            rate = f"limit rate over {most}/second burst {most} packets"
            # A limit counts for its rule: one for both IP versions, and for TCP and UDP.
            chains[f"limit.{service.name}"] = Chain((Rule.of(f"{rate} {refused}"),))
            rules.append(Rule.of(f"goto limit.{service.name}"))
        chains[_limit_chain(service, version)] = Chain(tuple(rules))
        return chains

    def _limited(self, service: NumberedService) -> bool:
        return f"{LIMITED}.{service.name}" in self.counters


def _limit_chain(service: NumberedService, version: int) -> str:
    return f"limit{version}.{service.name}"


def _refused(service: str, admission: Admission, counter: str) -> str:
    counted = f"counter name {counter}.{service}"
    if admission.refusal is Refusal.DROP:
        return f"{counted} drop"
    return f"{counted} meta mark set {REFUSED_MARK:#x} accept"
