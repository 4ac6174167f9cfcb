"""Builds the ruleset of a desired state: its maps and chains.

A packet's path, at the ingress of a listed interface::

    in.eth0 ── frames for this host only, and untagged
      ├─ hot_tcp4, hot_udp4: a flow that was looked up a short while ago: forwarded
      ├─ service_port4: VIP . protocol . port ▶ service4.web    one look-up for all services
      ├─ a fragment ──────────────────────────▶ fragment4: follows its datagram's first one
      │  service_range4, service_any4: for ports that service_port4 does not have; only when
      │  some service needs them
      ├─ an ICMP error ───────────────────────▶ icmp4: follows the flow inside
      └─ a tag of VLAN 0 ─────────────────────▶ by_protocol: all of this again, tag or not
    in.tun0 ── packets without an Ethernet header: the rules of by_protocol
    service4.web
      ├─ lookup_tcp4 ▶ hit_tcp4: a known flow; its entry is refreshed and made hot; forwarded
      ├─ mark = slots_1[hash of the client] | the service's number      which backend
      ├─ backend_chosen4: a new flow is stored
      └─ forward4: to nexthop4[mark], counted there; the kernel finds the MAC address
         forward_by_size4 instead, where tunnels have a second device for large packets

The packets of health checks have a chain of their own: see ``probe_chain``. Where other balancers
must know flows, this path has more rules, none of them before a hot flow's: see ``shared_flows``.

Rules depend on services alone; backends only change the content of maps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from tula.dataplane.nft.base_rules import BaseRules, lookups
from tula.dataplane.nft.client_admission import ClientAdmission
from tula.dataplane.nft.client_maps import CLIENTS_FULL, plan_client_maps
from tula.dataplane.nft.flow_maps import CLOSED, FLOWS, FRAGMENTS, HOTS, FlowMaps
from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedService, NumberedState
from tula.dataplane.nft.own_backends import (
    OWN,
    accept_rule,
    forward_chain,
    forwarded_chains,
    forwarder_rules,
    own_elements,
)
from tula.dataplane.nft.packet_fields import (
    BY_PROTOCOL,
    ETHERNET,
    ICMP_ERROR,
    INNER,
    INNER_UNREADABLE,
    IP,
    PRIORITY_TAGGED,
    PROTOCOL,
    VERSIONS,
    maybe_fragment,
    whole_packet,
)
from tula.dataplane.nft.probe_chain import PROBE, probe_chain
from tula.dataplane.nft.ruleset import (
    Chain,
    Elements,
    Key,
    Kind,
    MapName,
    Rule,
    Ruleset,
    Value,
    pick_size,
)
from tula.dataplane.nft.sample import plan_sample
from tula.dataplane.nft.scheduler_maps import SchedulerMaps
from tula.dataplane.nft.schema import schema_counter
from tula.dataplane.nft.service_chains import ServiceChains
from tula.dataplane.nft.shared_chains import (
    COUNTERS,
    hot_rule,
    inner_lookups,
    no_backend_counter,
    shared_chains,
)
from tula.dataplane.nft.shared_flows import (
    SHARING_COUNTERS,
    plan_sharing_maps,
    receiving_chain,
)
from tula.dataplane.nft.tunnel_devices import SYNC_DEVICE
from tula.dataplane.nft.virtual_mac import admit_virtual_macs
from tula.model.config import Protocol
from tula.model.desired import NewFlows
from tula.model.stats import FORWARDED_HERE

NEXTHOP = {4: Kind.NEXTHOP4, 6: Kind.NEXTHOP6}
_DISPATCH = {
    4: (Kind.SERVICE_PORT4, Kind.SERVICE_RANGE4, Kind.SERVICE_ANY4),
    6: (Kind.SERVICE_PORT6, Kind.SERVICE_RANGE6, Kind.SERVICE_ANY6),
}
_ICMP_DISPATCH = {
    4: (Kind.ICMP_SERVICE_PORT4, Kind.ICMP_SERVICE_RANGE4, Kind.ICMP_SERVICE_ANY4),
    6: (Kind.ICMP_SERVICE_PORT6, Kind.ICMP_SERVICE_RANGE6, Kind.ICMP_SERVICE_ANY6),
}
_UNSIZED = frozenset(
    {
        *(Kind.SERVICE_RANGE4, Kind.ICMP_SERVICE_RANGE4),
        *(Kind.SERVICE_RANGE6, Kind.ICMP_SERVICE_RANGE6),
    }
)

FORWARD_BY_SIZE = "forward_by_size4"
ANY_FRAME = "by_protocol"
"""The rules of a base chain for frames whose Ethernet type is not that of a packet."""
_FRAGMENTED = 65536
"""Fragmented datagrams at a time, of each IP version."""


@dataclass(frozen=True, slots=True)
class BuiltRuleset:
    """A ruleset, with what the next one can take from it.

    ``slots`` and ``wrr`` are maps by their number in ``state``, ``shared`` those of them that
    several services use; ``flows`` is by IP version.
    """

    state: NumberedState
    ruleset: Ruleset
    slots: Mapping[int, MapName]
    wrr: Mapping[int, MapName]
    shared: Collection[MapName]
    flows: Mapping[int, FlowMaps]
    admission: ClientAdmission


def build_ruleset(state: NumberedState, present: Collection[str] = ()) -> BuiltRuleset:
    """The table's content. ``present`` names the maps that are there: one that fits is kept."""
    builder = _Builder(state, present)
    for version in VERSIONS:
        builder.add_version(version)
    builder.add_ingress()
    builder.add_probes()
    counters = COUNTERS | {schema_counter()}
    if builder.sharing is not None:
        builder.chains[ingress_chain(SYNC_DEVICE)] = receiving_chain(
            builder.sharing, builder.flows, builder.clients.learns if builder.clients else {}
        )
        counters |= SHARING_COUNTERS
    if builder.clients is not None:
        counters |= {CLIENTS_FULL}
    counters |= {FORWARDED_HERE} if state.forwarders else set()
    counters |= {no_backend_counter(service.name) for service in state.services}
    counters |= builder.admission.counters
    ruleset = Ruleset(builder.maps, builder.chains, counters)
    maps = builder.scheduler_maps
    return BuiltRuleset(
        state, ruleset, maps.slots, maps.wrr, maps.shared, builder.flows, builder.admission
    )


def ingress_chain(interface: str) -> str:
    """The base chain of an interface; a name that nft cannot write gets a digest for it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", interface)
    if plain != interface:
        plain += "." + blake2b(interface.encode(), digest_size=4).hexdigest()
    return f"in.{plain}"


class _Builder:
    """Maps and chains as they grow; first the services of each IP version, then the ingress."""

    def __init__(self, state: NumberedState, present: Collection[str]) -> None:
        self.state = state
        self.present = present
        self.maps: dict[str, Elements] = {}
        self.chains: dict[str, Chain] = {}
        self.ethernet, self.any_frame = BaseRules(ETHERNET), BaseRules(BY_PROTOCOL)
        self.flows: dict[int, FlowMaps] = {}
        self.scheduler_maps = SchedulerMaps(state)
        self.maps |= self.scheduler_maps.maps()
        self.admission = ClientAdmission.of(state)
        self.maps |= self.admission.maps
        self.accepting = self._add_accepting() if state.connections.enabled else None
        self.sharing = plan_sharing_maps(state, self._add_map)
        self.clients = plan_client_maps(state, self._add_map, self._add_filled)

    def _add_map(self, kind: Kind, elements: Elements) -> MapName:
        sized = kind not in _UNSIZED
        name = pick_size(kind, len(elements), self.present) if sized else MapName(kind)
        self.maps[str(name)] = elements
        return name

    def _add_dynamic(self, kind: Kind, size: int) -> MapName:
        """A map that packets fill."""
        return self._add_filled(MapName(kind, size))

    def _add_filled(self, name: MapName) -> MapName:
        self.maps[str(name)] = {}
        return name

    def _add_accepting(self) -> MapName:
        accepting: dict[Key, Value] = {
            backend_id(service.number, backend.number): None
            for service in self.state.services
            for backend in service.backends
            if backend.weight and backend.present
        }
        return self._add_map(Kind.ACCEPTS_NEW_FLOWS, accepting)

    def add_version(self, version: int) -> None:
        """Everything of one IP version, unless no service has a VIP of it."""
        services = [service for service in self.state.services if service.packed_vips(version)]
        if not services:
            return
        flows = self.flows[version] = self._flows(services, version)
        maps = self.scheduler_maps
        admission = self.admission
        made = ServiceChains(
            version, flows, self.state, maps.slots, maps.wrr, maps.shared, admission
        )
        for service in services:
            self.chains |= made.of(service)
        by_port, *others = self._dispatch(services, version, _DISPATCH[version], made.service_chain)
        self.chains |= shared_chains(flows, by_port)
        for base in (self.ethernet, self.any_frame):
            self._add_base(base, flows, services, by_port, others)
        serving = [service for service in services if service.table is not None]
        by_icmp = self._dispatch(serving, version, _ICMP_DISPATCH[version], made.icmp_chain)
        self.chains[flows.name("icmp")] = Chain(
            (
                *(Rule.of(f"{other} return") for other in INNER_UNREADABLE[version]),
                *inner_lookups(flows),
                *(
                    rule
                    for inner in INNER[version]
                    for rule in lookups(by_icmp, (inner.vip, inner.port), inner.match)
                ),
            )
        )

    def _dispatch(
        self,
        services: list[NumberedService],
        version: int,
        kinds: tuple[Kind, Kind, Kind],
        chain_of: Callable[[NumberedService, Protocol], str],
    ) -> list[MapName | None]:
        """The maps that lead to services: by one port, by a range of ports, for any port."""
        single: dict[Key, Value] = {}
        ranges: dict[Key, Value] = {}
        any_port: dict[Key, Value] = {}
        for service in services:
            for vip in service.packed_vips(version):
                for protocol in service.protocols:
                    chain = chain_of(service, protocol)
                    if not service.ports:
                        any_port[vip, protocol.number] = chain
                    for ports in service.ports:
                        key = (vip, protocol.number, ports.first, ports.last)
                        (single if ports.first == ports.last else ranges)[key] = chain
        return [
            self._add_map(kind, elements) if elements else None
            for kind, elements in zip(kinds, (single, ranges, any_port), strict=True)
        ]

    def _add_base(
        self,
        base: BaseRules,
        flows: FlowMaps,
        services: list[NumberedService],
        by_port: MapName | None,
        others: list[MapName | None],
    ) -> None:
        version = flows.version
        ip, frame = IP[version], base.frame[version]
        # Hot flows before all else, as most packets need no other rule. A VLAN's frame shows at
        # its parent interface too, and does not belong there, though a flow of the same addresses
        # and ports may be hot.
        for protocol in flows.tables or ():
            if any(protocol in service.flow_protocols for service in services):
                base.hot.append(hot_rule(flows, protocol, f"meta pkttype host {frame}"))
        if by_port is not None:
            key = f"{whole_packet(version, frame)}{ip} daddr . {PROTOCOL[version]} . th dport"
            base.by_port.append(Rule.of(f"{key} vmap @{by_port}"))
        fragment = f"{maybe_fragment(version, frame)}jump {flows.name('fragment')}"
        base.rest += [
            Rule.of(fragment),
            *lookups((None, *others), (f"{frame}{ip} daddr . meta l4proto", "th dport")),
            Rule.of(f"{frame}{ICMP_ERROR[version]}goto {flows.name('icmp')}"),
        ]

    def add_ingress(self) -> None:
        """The base chains, once the dispatch is known."""
        state = self.state
        forwarded = forwarded_chains(state, self._add_map)
        self.chains |= forwarded
        tagged = []
        if self.flows and set(state.interfaces) - state.headerless:
            self.chains[ANY_FRAME] = Chain(self.any_frame.rules())
            tagged = [Rule.of(f"{match}goto {ANY_FRAME}") for match in PRIORITY_TAGGED]
        for interface in state.interfaces:
            headerless = interface in state.headerless
            rules = self.any_frame.rules() if headerless else self.ethernet.rules(tagged)
            if forwarded and not headerless:
                rules = (*forwarder_rules(state), *rules)
            if interface in state.virtual_macs:
                rules = admit_virtual_macs(rules, state.virtual_macs[interface])
            self.chains[ingress_chain(interface)] = Chain(rules, interface)

    def add_probes(self) -> None:
        """The chain of the balancer's own health checks, if there are any."""
        made = probe_chain(self.state, self._add_map)
        if made is not None:
            self.chains[PROBE] = made

    def _flows(self, services: list[NumberedService], version: int) -> FlowMaps:
        nexthops: dict[Key, Value] = {}
        devices: dict[Key, Value] = {}
        large: dict[Key, Value] = {}
        interfaces = set()
        links = self.state.links
        for service in services:
            for backend in service.backends:
                hop = backend.hops.get(version)
                if hop is not None:
                    mark = backend_id(service.number, backend.number)
                    owner = service.name if hop.named else f"{service.name} {backend.key}"
                    if backend.present:
                        nexthops[mark] = (hop.packed, owner)
                    # What follows stays while a backend is away, so that rules stand still.
                    devices[mark] = links[hop.interface]
                    interfaces.add(hop.interface)
                    if hop.big:
                        large[mark] = links[hop.big]
        hops = self._add_map(NEXTHOP[version], nexthops)
        forward = f"fwd {IP[version]} to meta mark map @{hops} device"
        if len(interfaces) > 1:
            kind = Kind.DEVICE4 if version == 4 else Kind.DEVICE6
            rule = Rule.of(f"{forward} meta mark map @{self._add_map(kind, devices)}")
        else:
            # One interface for all: the rule names it, which saves a look-up for each packet.
            rule = self._one_device(forward, next(iter([*interfaces, *self.state.interfaces]), ""))
        if large:
            rule = self._add_forward_by_size(forward, large, rule)
        if (own := own_elements(services)) is not None:
            accept = accept_rule(self._add_map(OWN[version], own))
            self.chains[forward_chain(version)] = Chain((rule, accept))
            rule = Rule.of(f"jump {forward_chain(version)}")
        connections = self.state.connections
        tables, closed, hot = None, None, {}
        if connections.enabled:
            tables = {
                protocol: self._add_dynamic(kind, connections.size)
                for protocol, kind in FLOWS[version].items()
            }
            closed = self._add_dynamic(CLOSED[version], connections.size)
            hot = {
                protocol: self._add_dynamic(kind, connections.size)
                for protocol, kind in HOTS[version].items()
            }
        return FlowMaps(
            version=version,
            settings=connections,
            forward=rule,
            fragments=self._add_dynamic(FRAGMENTS[version], _FRAGMENTED),
            tables=tables,
            hot=hot,
            closed=closed,
            try_learn=any(service.choice is not NewFlows.HASH for service in services),
            accepting=self.accepting,
            sharing=self.sharing,
            clients=self.clients,
            sample=plan_sample(self.state, version, self._add_dynamic),
        )

    def _one_device(self, forward: str, name: str) -> Rule:
        """Forwarding over one interface; where there is none, nothing comes in either."""
        if not name:
            return Rule.of("drop")
        index = self.state.links[name]
        # By its index where nft might have to look up the name of a device just made.
        shown = index if name in self.state.tunnels.devices else f'"{name}"'
        return Rule.of(f"{forward} {shown}", str(index))

    def _add_forward_by_size(self, forward: str, large: Elements, small: Rule) -> Rule:
        """Forwarding where large IPv4 packets take another device than small ones.

        Like ``small``, it comes back when the backend has left.
        """
        has_device = self._add_map(Kind.HAS_LARGE_DEVICE4, dict.fromkeys(large))
        device = self._add_map(Kind.LARGE_DEVICE4, large)
        above = f"meta length > {self.state.big_above} "
        self.chains[FORWARD_BY_SIZE] = Chain(
            (
                # The outer packet takes "don't fragment" from the one inside (ip_tunnel.c).
                Rule.of(f"{above}ip frag-off 0x4000 meta mark @{has_device} ip frag-off set 0"),
                Rule.of(f"{above}{forward} meta mark map @{device}"),
                small,
            )
        )
        return Rule.of(f"jump {FORWARD_BY_SIZE}")
