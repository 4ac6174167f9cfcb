"""What becomes of a flow in a table that somebody else has changed; pure.

Follows the packet's path (``build.py``) through what the table holds now. Rules are known by their
digests alone: a chain that has others cannot be followed, and that is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from tula.dataplane.nft.build import NEXTHOP, BuiltRuleset
from tula.dataplane.nft.ids import Ids, backend_id, split_id
from tula.dataplane.nft.lookup3 import slot_of
from tula.dataplane.nft.numbered import NumberedService
from tula.dataplane.nft.own_backends import OWN
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Ruleset, Value
from tula.dataplane.nft.tunnel_devices import SYNC_DEVICE
from tula.dataplane.port import Followed
from tula.model.config import Protocol
from tula.model.desired import NewFlows
from tula.model.flow import Flow, FlowEntry

HOST = "nobody forwards this packet; the host's own stack gets it"
_DROPPED = "it is dropped"
_EXACT = {4: Kind.SERVICE_PORT4, 6: Kind.SERVICE_PORT6}
_RANGE = {4: Kind.SERVICE_RANGE4, 6: Kind.SERVICE_RANGE6}
_ANY = {4: Kind.SERVICE_ANY4, 6: Kind.SERVICE_ANY6}


def follow_flow(
    found: Ruleset | None, built: BuiltRuleset, ids: Ids, flow: Flow, entry: FlowEntry | None
) -> Followed:
    """Where the flow goes now; ``built`` is what the table should be, and ``entry`` what it holds
    for the flow."""
    if found is None:
        return Followed(None, None, f"the kernel has no table of Tula: {HOST}")
    if found.foreign.dormant:
        return Followed(None, None, f"Tula's table in the kernel is dormant: {HOST}")
    wanted = built.ruleset.chains
    ingress = {n: chain for n, chain in wanted.items() if chain.device not in ("", SYNC_DEVICE)}
    deaf = [c.device for n, c in ingress.items() if not _is_attached(found.chains.get(n), c)]
    if len(deaf) == len(ingress):
        return Followed(None, None, f"Tula has no rules at {', '.join(deaf)}: {HOST}")
    where = f"; where it arrives by {', '.join(deaf)}, {HOST}" if deaf else ""
    version = flow.vip.version
    chain = next(_dispatched(found, flow), None)
    if chain is None:
        port = f"{flow.vip} {flow.protocol} port {flow.port}"
        return Followed(None, None, f"no service in the kernel takes {port}: {HOST}")
    name = chain.partition(".")[2]
    path = [n for n in ingress if n in found.chains and found.chains[n].rules] + [chain]
    path += [n for n in wanted if n in (f"known{version}.{name}", f"remember{version}.{name}")]
    path += [n for n in wanted if "." not in n and n.endswith(str(version))]
    for each in path:
        have, want = found.chains.get(each), wanted.get(each)
        if have is None or want is None or have.rules != want.rules:
            return Followed(
                name, None, f"chain {each} in the kernel is not as Tula makes it: what it does "
                "with this packet cannot be told",
            )  # fmt: skip
    service = next(s for s in built.state.services if s.name == name)
    followed = _choose(found, built, ids, service, flow, entry)
    return Followed(name, followed[0], f"{name} takes it; {followed[1]}{where}")


def _is_attached(have: Chain | None, want: Chain) -> bool:
    return have is not None and have.device == want.device and bool(have.rules)


def _dispatched(found: Ruleset, flow: Flow) -> Iterator[str]:
    """The chains that the flow's packets are led to, in the order of the rules."""
    vip, version, number = flow.vip.packed, flow.vip.version, flow.protocol.number
    exact = _of_kind(found, _EXACT[version]).get((vip, number, flow.port, flow.port))
    if exact is not None:
        yield str(exact)
    for key, value in _of_kind(found, _RANGE[version]).items():
        if isinstance(key, tuple) and len(key) == 4 and key[:2] == (vip, number):
            first, last = key[2:]
            if first <= flow.port <= last:
                yield str(value)
    other = _of_kind(found, _ANY[version]).get((vip, number))
    if other is not None:
        yield str(other)


def _choose(
    found: Ruleset,
    built: BuiltRuleset,
    ids: Ids,
    service: NumberedService,
    flow: Flow,
    entry: FlowEntry | None,
) -> tuple[str | None, str]:
    """The backend (``Backend.key``), and why."""
    if service.per_packet and flow.protocol is Protocol.UDP:
        return None, "each packet gets its turn anew"
    version = flow.vip.version
    hops = {**_of_kind(found, NEXTHOP[version]), **_of_kind(found, OWN[version])}
    keys = {number: key for key, number in ids.backends.items()}
    if entry is not None and ids.knows(entry.service, entry.backend):
        if ids.mark(entry.service, entry.backend) in hops:
            return entry.backend, "the table of connections holds this flow"
        return None, "the backend of the entry that it has is gone: it is given another one"
    if service.table is None:
        return None, f"no backend of it serves: {_DROPPED}"
    scope = service.persistence
    unless = "" if scope is None else ", unless its client's entry says otherwise"
    if service.choice is not NewFlows.HASH and built.state.connections.enabled:
        return None, f"a new flow gets its turn{unless}"
    slots = built.slots[service.table]
    client = flow.client if scope is None else scope.client(flow.client).network_address
    port = None if service.by_client else flow.client_port
    slot = slot_of(client, port, built.state.seed, slots.size)
    value = found.maps.get(str(slots), {}).get(slot)
    if not isinstance(value, int):
        return None, f"slot {slot} of {slots} is empty: {_DROPPED}"
    mark = backend_id(service.number, value) if slots in built.shared else value
    if mark not in hops:
        return None, f"slot {slot} is of a backend that the kernel has no next hop for: {_DROPPED}"
    return keys.get(split_id(mark)[1]), f"its hash gives slot {slot}{unless}"


def _of_kind(found: Ruleset, kind: Kind) -> Elements:
    """The elements of the map of this kind; while one replaces another, there are two."""
    merged: dict[Key, Value] = {}
    for name, elements in found.maps.items():
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind is kind:
            merged.update(elements)
    return merged
