"""Backends that are this machine: their packets are accepted, for the machine's own stack.

``fwd`` leads nowhere for them. So where there are some, forwarding is a chain that accepts what it
has not forwarded, if it is theirs, and comes back only when the backend has left::

    forward_or_own4
      ├─ to nexthop4[mark], as ever
      └─ mark = own4[mark]: LOCAL_MARK, counted there; accepted

The mark is the guard's (``own_stack``): what a packet carries that is meant for this machine. It
takes the place of the backend's id, which policy routing could take for one of its own.

Other balancers may have this machine as their backend, too. A packet that one of them has forwarded
is not balanced again: this machine might choose the other one, and so on. Its frame comes from
that balancer's own MAC address, and clients' packets do not::

    in.eth0
      ├─ from such a MAC ▶ forwarded ─ to a VIP of forwarded4: LOCAL_MARK, counted; accepted
      └─ hot_tcp4, … as ever

That comes first: the flow may be hot here as well, from when its packets came here first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.numbered import NumberedBackend, NumberedService, NumberedState
from tula.dataplane.nft.own_stack import LOCAL_MARK
from tula.dataplane.nft.packet_fields import BY_PROTOCOL, ETHERNET, IP, PRIORITY_TAGGED, VERSIONS
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Value
from tula.model.stats import FORWARDED_HERE

OWN = {4: Kind.OWN4, 6: Kind.OWN6}
FORWARDED = "forwarded"
"""The chain of frames from other balancers."""
ACCEPTED = "accept_forwarded"
"""The chain of those that are for this machine as a backend."""

_VIPS = {4: Kind.FORWARDED4, 6: Kind.FORWARDED6}
_MARK = LOCAL_MARK.to_bytes(4, sys.byteorder)
_ICMP = {4: 1, 6: 58}

AddMap = Callable[[Kind, Elements], MapName]


def forward_chain(version: int) -> str:
    """The chain that forwards or accepts."""
    return f"forward_or_own{version}"


def own_element(service: NumberedService, backend: NumberedBackend) -> Value:
    """A backend's in OWN: the mark, and whose it is."""
    return _MARK, f"{service.name} {backend.key}"


def own_elements(services: Iterable[NumberedService]) -> dict[Key, Value] | None:
    """Those of all backends that are this machine and present; None where there are no such
    backends."""
    found: dict[Key, Value] = {}
    some = False
    for service in services:
        for backend in service.backends:
            some = some or backend.own
            if backend.own and backend.present:
                found[backend_id(service.number, backend.number)] = own_element(service, backend)
    return found if some else None


def accept_rule(own: MapName) -> Rule:
    """Accepts the packets of backends that are this machine."""
    return Rule.of(f"meta mark set meta mark map @{own} accept")


def forwarded_chains(state: NumberedState, add_map: AddMap) -> dict[str, Chain]:
    """What is done with frames from other balancers; empty where none forwards to this machine."""
    if not state.forwarders:
        return {}
    rules = [Rule.of("meta pkttype != host return")]
    for version in VERSIONS:
        vips: dict[Key, Value] = {
            (vip, protocol): ACCEPTED
            for service in state.services
            if any(backend.own for backend in service.backends)
            for vip in service.packed_vips(version)
            # ICMP errors about its flows are forwarded as well.
            for protocol in (*(p.number for p in service.protocols), _ICMP[version])
        }
        if vips:
            name = add_map(_VIPS[version], vips)
            key = f"{IP[version]} daddr . meta l4proto vmap @{name}"
            tagged = [f"{tag}{BY_PROTOCOL[version]}" for tag in PRIORITY_TAGGED]
            rules += [Rule.of(f"{frame}{key}") for frame in (ETHERNET[version], *tagged)]
    accepted = Rule.of(f"counter name {FORWARDED_HERE} meta mark set {LOCAL_MARK:#x} accept")
    return {FORWARDED: Chain(tuple(rules)), ACCEPTED: Chain((accepted,))}


def forwarder_rules(state: NumberedState) -> Iterator[Rule]:
    """The first rules of a base chain. Read in two parts, of which the first has more that differs
    between cards: up to 4 bytes cost 7 ns, and more than that 45."""
    for mac in state.forwarders:
        match = f"@ll,64,32 0x{mac[2:].hex()} @ll,48,16 0x{mac[:2].hex()}"
        yield Rule.of(f"{match} jump {FORWARDED}")
