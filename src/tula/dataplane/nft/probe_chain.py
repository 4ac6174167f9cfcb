"""Forwards the balancer's own probes to the backend that they name, like a client's packets.

A probe's socket has PROBE_MARK as its mark and the backend's id as its priority. Its packets leave
by ``lo``, wherever the VIP is (docs/adr/0009), and come back in there at once::

    probe (ingress of lo) ── any other packet: to the host's stack
      ├─ mark = probe_backend[priority]   the backend's id; the priority is reset
      ├─ to probe_nexthop4[mark], over probe_device4[mark]
      └─ dropped: no such backend, or its device is gone

At the ingress of ``lo`` a packet looks as it does at the ingress of any interface, so the
expression that forwards the services' packets forwards these too.
"""

from __future__ import annotations

from collections.abc import Callable

from tula.dataplane.nft.ids import PROBE_MARK, backend_id
from tula.dataplane.nft.numbered import NumberedService, NumberedState
from tula.dataplane.nft.packet_fields import IP, VERSIONS
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Value

PROBE = "probe"
LOOPBACK = "lo"

_NEXTHOPS = {4: Kind.PROBE_NEXTHOP4, 6: Kind.PROBE_NEXTHOP6}
_DEVICES = {4: Kind.PROBE_DEVICE4, 6: Kind.PROBE_DEVICE6}


def probe_chain(state: NumberedState, add_map: Callable[[Kind, Elements], MapName]) -> Chain | None:
    """The base chain, or None when no service is checked through the data path.

    ``add_map`` puts a map into the table and returns its name.
    """
    services = [service for service in state.services if service.probed]
    if not services:
        return None
    known: dict[Key, Value] = {
        mark: mark
        for service in services
        for backend in service.backends
        for mark in (backend_id(service.number, backend.number),)
    }
    forward = [
        _forward(version, services, state, add_map)
        for version in VERSIONS
        if any(service.packed_vips(version) for service in services)
    ]
    own: dict[Key, Value] = {
        backend_id(service.number, backend.number): None
        for service in services
        for backend in service.backends
        if backend.own
    }
    return Chain(
        (
            Rule.of(f"meta mark != {PROBE_MARK:#x} accept"),
            # Neither number stays on the packet: further on, the mark could match the host's
            # routing rules (vxlan looks up its outer route by it), the priority a queue's class.
            Rule.of(
                f"meta mark set meta priority map @{add_map(Kind.PROBE_BACKEND, known)} "
                "meta priority set none"
            ),
            *(_accept(add_map(Kind.PROBE_OWN, own)) if own else ()),
            *forward,
            # Otherwise this host would get the packet and answer it: a backend would count as up
            # though nobody asked it.
            Rule.of("drop"),
        ),
        LOOPBACK,
    )


def _accept(own: MapName) -> tuple[Rule, ...]:
    """Those for a backend that is this machine have arrived."""
    return (Rule.of(f"meta mark @{own} meta mark set 0 accept"),)


def _forward(
    version: int,
    services: list[NumberedService],
    state: NumberedState,
    add_map: Callable[[Kind, Elements], MapName],
) -> Rule:
    hops: dict[Key, Value] = {}
    devices: dict[Key, Value] = {}
    for service in services:
        for backend in service.backends:
            hop = backend.hops.get(version)
            if hop is not None:
                mark = backend_id(service.number, backend.number)
                hops[mark] = (hop.packed, "")
                devices[mark] = state.links[hop.interface]
    hop_map, device_map = add_map(_NEXTHOPS[version], hops), add_map(_DEVICES[version], devices)
    return Rule.of(
        f"fwd {IP[version]} to meta mark map @{hop_map} device meta mark map @{device_map}"
    )
