"""The shape of the rules: what a desired state is in maps and chains.

A packet's way, at the ingress of a listed interface::

    in.eth0 ── frames for this host only
      └─ exact4: VIP . protocol . port ─▶ svc4.web        one look-up, however many services
         range4, any4: only for what exact4 does not name, and only when some service needs them
    svc4.web
      ├─ mark = slots_1[hash of the client] | the service's number      which backend
      ├─ fwd to via4[mark]                                              its MAC, counted there
      └─ no_backend: counted, dropped

Rules depend on services; which backends there are shows in maps alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from hashlib import blake2b

from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Ruleset, Value
from tula.model.desired import DesiredService, DesiredState
from tula.model.ids import BACKEND_BITS, backend_id

NO_BACKEND = "no_backend"
"""The counter of packets that were for a service, but for none of its backends."""

VERSIONS = (4, 6)
_IP = {4: "ip", 6: "ip6"}
_VIA = {4: Kind.VIA4, 6: Kind.VIA6}
_EXACT = {4: Kind.EXACT4, 6: Kind.EXACT6}
_RANGE = {4: Kind.RANGE4, 6: Kind.RANGE6}
_ANY = {4: Kind.ANY4, 6: Kind.ANY6}

_SMALLEST = 1024


def shape_ruleset(state: DesiredState, present: Collection[str] = ()) -> Ruleset:
    """The table's content. ``present`` names the maps that are there: one that fits is kept."""
    shaped = _Shape(state, present)
    for version in VERSIONS:
        shaped.add_version(version)
    shaped.add_ingress()
    return Ruleset(shaped.maps, shaped.chains, frozenset({NO_BACKEND}))


def service_chain(name: str, version: int) -> str:
    """The chain of a service's packets of one IP version."""
    return f"svc{version}.{name}"


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
        self.dispatch: list[Rule] = []
        self.slots: dict[int, MapName] = {}
        for number, table in state.tables.items():
            name = MapName(Kind.SLOTS, len(table), number)
            self.slots[number] = name
            self.maps[str(name)] = dict(enumerate(table))
        devices = {
            backend_id(service.number, backend.number): state.links[hop.interface]
            for service in state.services
            for backend in service.backends
            for hop in backend.hops.values()
        }
        self.device = pick_size(Kind.DEVICE, len(devices), present)
        # Only services whose backends are on several interfaces look their device up.
        self.devices: dict[Key, Value] = {}

    def _add_map(self, kind: Kind, elements: Elements) -> MapName:
        sized = kind not in (Kind.RANGE4, Kind.RANGE6)
        name = pick_size(kind, len(elements), self.present) if sized else MapName(kind)
        self.maps[str(name)] = elements
        return name

    def add_version(self, version: int) -> None:
        """Everything of one IP version, unless no service has a VIP of it."""
        services = [service for service in self.state.services if service.vips_of(version)]
        if not services:
            return
        via: dict[Key, Value] = {}
        for service in services:
            for backend in service.backends:
                if version in backend.hops:
                    mark = backend_id(service.number, backend.number)
                    via[mark] = (backend.hops[version].address.packed, service.name)
        via_name = self._add_map(_VIA[version], via)
        for service in services:
            rules = self._service_rules(service, version, via_name)
            self.chains[service_chain(service.name, version)] = Chain(rules)
        self._add_dispatch(services, version)

    def _service_rules(
        self, service: DesiredService, version: int, via: MapName
    ) -> tuple[Rule, ...]:
        drop = Rule.of(f"counter name {NO_BACKEND} drop")
        if service.table is None:
            return (drop,)
        slots = self.slots[service.table]
        ip = _IP[version]
        key = f"{ip} saddr" if service.by_client else f"{ip} saddr . th sport"
        hops = [backend.hops[version] for backend in service.backends if version in backend.hops]
        interfaces = sorted({hop.interface for hop in hops})
        if len(interfaces) == 1:
            device, pinned = f'"{interfaces[0]}"', str(self.state.links[interfaces[0]])
        else:
            device, pinned = f"meta mark map @{self.device}", ""
            for backend in service.backends:
                if version in backend.hops:
                    mark = backend_id(service.number, backend.number)
                    self.devices[mark] = self.state.links[backend.hops[version].interface]
        # Slots hold the backend's number and the rule adds the service's, so that services with
        # equal backends can share a table and still count apart. nft 1.0.6 has no form for
        # "map ... | number" in one statement.
        choose = (
            f"meta mark set jhash {key} mod {slots.size} seed {self.state.seed:#x} map @{slots} "
            f"meta mark set meta mark | {service.number << BACKEND_BITS:#x} "
        )
        forward = f"fwd {ip} to meta mark map @{via} device {device}"
        return (Rule.of(choose + forward, pinned), drop)

    def _add_dispatch(self, services: list[DesiredService], version: int) -> None:
        exact: dict[Key, Value] = {}
        ranges: dict[Key, Value] = {}
        anything: dict[Key, Value] = {}
        for service in services:
            chain = service_chain(service.name, version)
            for vip in service.vips_of(version):
                for protocol in service.protocols:
                    if not service.ports:
                        anything[vip.packed, protocol.number] = chain
                    for ports in service.ports:
                        key = (vip.packed, protocol.number, ports.first, ports.last)
                        (exact if ports.first == ports.last else ranges)[key] = chain
        ip = _IP[version]
        # "ether type", not the protocol that the kernel found: a VLAN-tagged frame shows its tag
        # there, and is not ours at the parent interface.
        match = f"ether type {ip} {ip} daddr . meta l4proto"
        for kind, elements, key_text in (
            (_EXACT[version], exact, f"{match} . th dport"),
            (_RANGE[version], ranges, f"{match} . th dport"),
            (_ANY[version], anything, match),
        ):
            if elements:
                self.dispatch.append(Rule.of(f"{key_text} vmap @{self._add_map(kind, elements)}"))

    def add_ingress(self) -> None:
        """The base chains, once the dispatch is known."""
        if self.devices:
            self.maps[str(self.device)] = self.devices
        # A flooding switch or a sniffer's promiscuous mode shows frames for other machines.
        ours: Iterable[Rule] = (Rule.of("meta pkttype != host return"), *self.dispatch)
        rules = tuple(ours)
        for interface in self.state.interfaces:
            self.chains[ingress_chain(interface)] = Chain(rules, interface)
