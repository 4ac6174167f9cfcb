"""The way of the balancer's own probes: to the backend that they name, as a client's packets go.

A probe's socket has PROBE_MARK as its mark and the backend's id as its priority. Its packets leave
by ``lo``, wherever the VIP is (docs/adr/0009), and come in there at once::

    in at lo ── any other packet: to the host's stack
      ├─ mark = probed[priority]      the backend's id; the priority is none again
      ├─ to probe4[mark], over probedevice4[mark]
      └─ dropped: no such backend, or its device is gone

At the ingress of ``lo`` a packet looks as at the ingress of any interface, from which the services'
packets are forwarded: so these are, by the same expression.
"""

from __future__ import annotations

from collections.abc import Callable

from tula.dataplane.nft.ids import PROBE_MARK, backend_id
from tula.dataplane.nft.numbered import NumberedService as DesiredService
from tula.dataplane.nft.numbered import NumberedState as DesiredState
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Value
from tula.dataplane.nft.words import IP, VERSIONS

PROBE = "probe"
LOOPBACK = "lo"

_HOPS = {4: Kind.PROBE4, 6: Kind.PROBE6}
_DEVICES = {4: Kind.PROBEDEVICE4, 6: Kind.PROBEDEVICE6}


def probe_chain(state: DesiredState, add_map: Callable[[Kind, Elements], MapName]) -> Chain | None:
    """The base chain, or None when no service is checked through the data path.

    ``add_map`` puts a map into the table and tells its name.
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
    return Chain(
        (
            Rule.of(f"meta mark != {PROBE_MARK:#x} accept"),
            # Neither number stays on the packet. Where it goes, the mark could match the host's
            # routing rules (vxlan looks its outer route up by it), the priority a queue's class.
            Rule.of(
                f"meta mark set meta priority map @{add_map(Kind.PROBED, known)} "
                "meta priority set none"
            ),
            *forward,
            # What comes here would be delivered to this host, and answered by it: up, of a
            # backend that was never asked.
            Rule.of("drop"),
        ),
        LOOPBACK,
    )


def _forward(
    version: int,
    services: list[DesiredService],
    state: DesiredState,
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
    hop_map, device_map = add_map(_HOPS[version], hops), add_map(_DEVICES[version], devices)
    return Rule.of(
        f"fwd {IP[version]} to meta mark map @{hop_map} device meta mark map @{device_map}"
    )
