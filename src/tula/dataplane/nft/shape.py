"""The shape of the rules: what a desired state is in maps and chains.

A packet's way, at the ingress of a listed interface::

    in.eth0 ── frames for this host only
      ├─ hottcp4, hotudp4: a flow that was looked up a short while ago: forwarded
      ├─ exact4: VIP . protocol . port ──▶ svc4.web       one look-up, however many services
      ├─ a fragment ─────────────────────▶ fragment4: with the datagram's first
      │  range4, any4: only for what exact4 does not name, and only when some service needs them
      └─ an ICMP error ──────────────────▶ icmp4: with the flow inside
    svc4.web
      ├─ tcp4, udp4: a flow that is known ▶ hit_tcp4: its entry prolonged, made hot; forwarded
      ├─ mark = slots_1[hash of the client] | the service's number      which backend
      ├─ chosen4: learned by the flow table
      └─ forward4: to via4[mark]                                        its MAC, counted there
         send4 stands before it where tunnels have a second device for large packets

The packets of health checks have a chain of their own: see ``probe_chain``.

Rules depend on services; which backends there are shows in maps alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedService as DesiredService
from tula.dataplane.nft.numbered import NumberedState as DesiredState
from tula.dataplane.nft.probe_chain import PROBE, probe_chain
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Ruleset, Value
from tula.dataplane.nft.schema import schema_counter
from tula.dataplane.nft.service_chains import ServiceChains
from tula.dataplane.nft.shared_chains import (
    COUNTERS,
    Flows,
    hot_rule,
    inner_lookups,
    shared_chains,
)
from tula.dataplane.nft.tables import Tables
from tula.dataplane.nft.words import (
    ICMP_ERROR,
    INNER,
    INNER_UNUSUAL,
    IP,
    PROTOCOL,
    UNUSUAL,
    USUAL,
    VERSIONS,
)
from tula.model.config import Protocol
from tula.model.desired import NewFlows as Choice

VIA = {4: Kind.VIA4, 6: Kind.VIA6}
_DISPATCH = {
    4: (Kind.EXACT4, Kind.RANGE4, Kind.ANY4),
    6: (Kind.EXACT6, Kind.RANGE6, Kind.ANY6),
}
_ICMP_DISPATCH = {
    4: (Kind.ICMPEXACT4, Kind.ICMPRANGE4, Kind.ICMPANY4),
    6: (Kind.ICMPEXACT6, Kind.ICMPRANGE6, Kind.ICMPANY6),
}
_FLOWS = {
    4: {Protocol.TCP: Kind.TCP4, Protocol.UDP: Kind.UDP4},
    6: {Protocol.TCP: Kind.TCP6, Protocol.UDP: Kind.UDP6},
}
_HOT = {
    4: {Protocol.TCP: Kind.HOTTCP4, Protocol.UDP: Kind.HOTUDP4},
    6: {Protocol.TCP: Kind.HOTTCP6, Protocol.UDP: Kind.HOTUDP6},
}
_CLOSED = {4: Kind.CLOSED4, 6: Kind.CLOSED6}
_FRAGMENTS = {4: Kind.FRAG4, 6: Kind.FRAG6}
_UNSIZED = frozenset({Kind.RANGE4, Kind.RANGE6, Kind.ICMPRANGE4, Kind.ICMPRANGE6})

SEND = "send4"
_SMALLEST = 1024
_FRAGMENTED = 65536
"""Datagrams in pieces at a time, of each IP version."""


def shape_ruleset(state: DesiredState, present: Collection[str] = ()) -> Ruleset:
    """The table's content. ``present`` names the maps that are there: one that fits is kept."""
    return shape(state, present).ruleset


@dataclass(frozen=True, slots=True)
class Shaped:
    """A ruleset, with what the next one can take from it; ``flows`` are by IP version."""

    state: DesiredState
    ruleset: Ruleset
    slots: Mapping[int, MapName]
    turns: Mapping[int, MapName]
    shared: Collection[MapName]
    flows: Mapping[int, Flows]


def shape(state: DesiredState, present: Collection[str] = ()) -> Shaped:
    """As ``shape_ruleset``."""
    shaped = _Shape(state, present)
    for version in VERSIONS:
        shaped.add_version(version)
    shaped.add_ingress()
    shaped.add_probes()
    counters = COUNTERS | {schema_counter()}
    ruleset = Ruleset(shaped.maps, shaped.chains, counters)
    tables = shaped.tables
    return Shaped(state, ruleset, tables.slots, tables.turns, tables.shared, shaped.flows)


def ingress_chain(interface: str) -> str:
    """The base chain of an interface; a name that nft cannot write gets a digest for it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", interface)
    if plain != interface:
        plain += "." + blake2b(interface.encode(), digest_size=4).hexdigest()
    return f"in.{plain}"


def pick_size(kind: Kind, needed: int, present: Collection[str]) -> MapName:
    """A map of this kind with room: the one that is there if it fits, else with room to grow."""
    for name in present:
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind is kind and parsed.size >= needed:
            return parsed
    return MapName(kind, max(_SMALLEST, 1 << (2 * needed - 1).bit_length()))


class _Shape:
    """Maps and chains as they grow; first the services of each IP version, then the ingress."""

    def __init__(self, state: DesiredState, present: Collection[str]) -> None:
        self.state = state
        self.present = present
        self.maps: dict[str, Elements] = {}
        self.chains: dict[str, Chain] = {}
        self.hot: list[Rule] = []
        self.exact: list[Rule] = []
        self.ingress: list[Rule] = []
        self.flows: dict[int, Flows] = {}
        self.tables = Tables(state)
        self.maps |= self.tables.maps()
        self.open = self._add_open() if state.connections.enabled else None

    def _add_map(self, kind: Kind, elements: Elements) -> MapName:
        sized = kind not in _UNSIZED
        name = pick_size(kind, len(elements), self.present) if sized else MapName(kind)
        self.maps[str(name)] = elements
        return name

    def _add_filled(self, kind: Kind, size: int) -> MapName:
        """A map that packets fill."""
        name = MapName(kind, size)
        self.maps[str(name)] = {}
        return name

    def _add_open(self) -> MapName:
        taking: dict[Key, Value] = {
            backend_id(service.number, backend.number): None
            for service in self.state.services
            for backend in service.backends
            if backend.weight and backend.present
        }
        return self._add_map(Kind.OPEN, taking)

    def add_version(self, version: int) -> None:
        """Everything of one IP version, unless no service has a VIP of it."""
        services = [service for service in self.state.services if service.packed_vips(version)]
        if not services:
            return
        flows = self.flows[version] = self._flows(services, version)
        tables = self.tables
        made = ServiceChains(version, flows, self.state, tables.slots, tables.turns, tables.shared)
        for service in services:
            self.chains |= made.of(service)
        ip = IP[version]
        # "ether type", not the protocol that the kernel found: a VLAN-tagged frame shows its tag
        # there, and is not ours at the parent interface.
        ours = f"ether type {ip} "
        self._add_hot(flows, services)
        exact, *others = self._dispatch(services, version, _DISPATCH[version], made.service_chain)
        self.chains |= shared_chains(flows, exact)
        if exact is not None:
            key = f"{USUAL[version]}{ip} daddr . {PROTOCOL[version]} . th dport"
            self.exact.append(Rule.of(f"{key} vmap @{exact}"))
        self.ingress.append(Rule.of(f"{UNUSUAL[version]}jump {flows.name('fragment')}"))
        key = f"{ours}{ip} daddr . meta l4proto"
        self.ingress += _lookups((None, *others), (key, "th dport"))
        steered = [service for service in services if service.table is not None]
        by_icmp = self._dispatch(steered, version, _ICMP_DISPATCH[version], made.icmp_chain)
        self.chains[flows.name("icmp")] = Chain(
            (
                *(Rule.of(f"{unusual} return") for unusual in INNER_UNUSUAL[version]),
                *inner_lookups(flows),
                *(
                    rule
                    for inner in INNER[version]
                    for rule in _lookups(by_icmp, (inner.vip, inner.port), inner.match)
                ),
            )
        )
        self.ingress.append(Rule.of(f"{ours}{ICMP_ERROR[version]}goto {flows.name('icmp')}"))

    def _dispatch(
        self,
        services: list[DesiredService],
        version: int,
        kinds: tuple[Kind, Kind, Kind],
        chain_of: Callable[[DesiredService], str],
    ) -> list[MapName | None]:
        """The maps that lead to services: by an exact port, by a range, by any port."""
        exact: dict[Key, Value] = {}
        ranges: dict[Key, Value] = {}
        anything: dict[Key, Value] = {}
        for service in services:
            chain = chain_of(service)
            for vip in service.packed_vips(version):
                for protocol in service.protocols:
                    if not service.ports:
                        anything[vip, protocol.number] = chain
                    for ports in service.ports:
                        key = (vip, protocol.number, ports.first, ports.last)
                        (exact if ports.first == ports.last else ranges)[key] = chain
        return [
            self._add_map(kind, elements) if elements else None
            for kind, elements in zip(kinds, (exact, ranges, anything), strict=True)
        ]

    def _add_hot(self, flows: Flows, services: list[DesiredService]) -> None:
        """The rules for what is hot: before all others, as most packets need no other one."""
        if flows.tables is None:
            return
        # A VLAN's frame shows at its parent interface too, with its tag: there it is not ours,
        # though a flow of the same addresses and ports may be hot.
        guard = f"meta pkttype host ether type {IP[flows.version]} "
        for protocol in flows.tables:
            if any(protocol in service.protocols for service in services):
                self.hot.append(hot_rule(flows, protocol, guard))

    def add_ingress(self) -> None:
        """The base chains, once the dispatch is known."""
        # A flooding switch or a sniffer's promiscuous mode shows frames for other machines. What
        # stands before asks for itself: a rule less for most packets.
        others = Rule.of("meta pkttype != host return")
        rules = (*self.hot, *self.exact, others, *self.ingress)
        for interface in self.state.interfaces:
            self.chains[ingress_chain(interface)] = Chain(rules, interface)

    def add_probes(self) -> None:
        """The way of the balancer's own checks, if there are any."""
        made = probe_chain(self.state, self._add_map)
        if made is not None:
            self.chains[PROBE] = made

    def _flows(self, services: list[DesiredService], version: int) -> Flows:
        via: dict[Key, Value] = {}
        devices: dict[Key, Value] = {}
        big: dict[Key, Value] = {}
        interfaces = set()
        links = self.state.links
        for service in services:
            for backend in service.backends:
                hop = backend.hops.get(version)
                if hop is not None:
                    mark = backend_id(service.number, backend.number)
                    owner = service.name if hop.named else f"{service.name} {backend.key}"
                    if backend.present:
                        via[mark] = (hop.packed, owner)
                    # What follows stays while a backend is away, so that rules stand still.
                    devices[mark] = links[hop.interface]
                    interfaces.add(hop.interface)
                    if hop.big:
                        big[mark] = links[hop.big]
        via_name = self._add_map(VIA[version], via)
        forward = f"fwd {IP[version]} to meta mark map @{via_name} device"
        if len(interfaces) > 1:
            kind = Kind.DEVICE4 if version == 4 else Kind.DEVICE6
            rule = Rule.of(f"{forward} meta mark map @{self._add_map(kind, devices)}")
        else:
            # One interface for all: the rule names it, and saves a look-up for each packet.
            rule = self._one_way(forward, next(iter([*interfaces, *self.state.interfaces]), ""))
        if big:
            rule = self._add_send(forward, big, rule)
        connections = self.state.connections
        tables = closed = None
        hot = {}
        if connections.enabled:
            tables = {
                protocol: self._add_filled(kind, connections.size)
                for protocol, kind in _FLOWS[version].items()
            }
            closed = self._add_filled(_CLOSED[version], connections.size)
            hot = {
                protocol: self._add_filled(kind, connections.size)
                for protocol, kind in _HOT[version].items()
            }
        return Flows(
            version=version,
            settings=connections,
            forward=rule,
            fragments=self._add_filled(_FRAGMENTS[version], _FRAGMENTED),
            tables=tables,
            hot=hot,
            closed=closed,
            turns=any(service.choice is not Choice.HASH for service in services),
            open=self.open,
        )

    def _one_way(self, forward: str, name: str) -> Rule:
        """Forwarding by one interface; without any, nothing comes in either."""
        if not name:
            return Rule.of("drop")
        index = self.state.links[name]
        # By its number where a name may have to be asked for of a device just made.
        shown = index if name in self.state.tunnels.devices else f'"{name}"'
        return Rule.of(f"{forward} {shown}", str(index))

    def _add_send(self, forward: str, big: Elements, small: Rule) -> Rule:
        """The way for all IPv4 packets when large ones take another device; comes back as
        ``small`` breaks."""
        wide = self._add_map(Kind.WIDE, dict.fromkeys(big))
        above = f"meta length > {self.state.big_above} "
        self.chains[SEND] = Chain(
            (
                # The outer packet takes "don't fragment" from the one inside (ip_tunnel.c).
                Rule.of(f"{above}ip frag-off 0x4000 meta mark @{wide} ip frag-off set 0"),
                Rule.of(f"{above}{forward} meta mark map @{self._add_map(Kind.BIG4, big)}"),
                small,
            )
        )
        return Rule.of(f"jump {SEND}")


def _lookups(
    maps: Iterable[MapName | None], fields: tuple[str, str], match: str = ""
) -> list[Rule]:
    """The rules of a dispatch; ``fields`` are nft's words: VIP and protocol, and the port."""
    with_port = " . ".join(fields)
    return [
        Rule.of(f"{match}{words} vmap @{name}")
        for name, words in zip(maps, (with_port, with_port, fields[0]), strict=True)
        if name is not None
    ]
