"""Flows that other balancers must know: sent and learned by rules alone, no process takes part.

A packet of such a flow is cloned to SYNC_DEVICE, a VXLAN to all peers. The clone is the packet
itself, so it tells the flow, and what its flags do to it; its source MAC tells the backend. Ids
differ between machines, so that is a digest of the service's name and ``Backend.key``. The peer
learns from it and drops it::

    in.tula-sync
      ├─ mark = learned_as[source MAC] ▶ learn_shared4 ▶ learn_shared_tcp4: an entry, as by a packet
      │                                                  of the flow's own; dropped
      └─ unknown: counted, dropped

Which flows: all of them, or only exceptions, whose backend is not what the hash gives. For those
a service first asks the hash and puts the answer beside the packet's mark, into its priority
(``hash_choice``: to nft 1.0.6 one is a mark, the other a classid, and it converts neither). Then
the flow is looked up, and the pair of both is in ``as_hashed`` or the flow is an exception. Both
maps only name the backends that there are: they stand still when weights and health move.

All of this is on the way of packets whose flow is not hot (``shared_chains``), so each flow is told
again about once a minute; after a change the hot tables are emptied, and every active flow passes
here with its next packet.

Who may tell is decided by the outer source address, before the tunnel: ``admission_rules``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

from tula.dataplane.nft.ids import backend_id
from tula.dataplane.nft.packet_fields import BY_PROTOCOL, IP, VERSIONS
from tula.dataplane.nft.ruleset import Chain, Elements, Key, Kind, MapName, Rule, Value
from tula.dataplane.nft.tunnel_devices import ANY_MAC, SYNC_DEVICE, TunnelDevice, VxlanPeer
from tula.model.desired import SharedWith
from tula.model.stats import FLOWS_LEARNED, FLOWS_SENT, FLOWS_UNKNOWN

if TYPE_CHECKING:
    from tula.dataplane.nft.numbered import NumberedService, NumberedState

VNI = 0x5476
SHARING_COUNTERS = frozenset({FLOWS_SENT, FLOWS_LEARNED, FLOWS_UNKNOWN})
_LOCAL = 0x02 << 40
"""The first byte of a MAC that nobody was given (IEEE 802, locally administered)."""
_MTU = 1500
"""Says nothing of clones: a packet that is forwarded at ingress is not held against it."""
_HOPS = 255
"""The hops that a clone may take when it is sent: all, so that the receiver sees how many it
took."""
_HOP_LIMIT = {4: "ip ttl", 6: "ip6 hoplimit"}
_LARGEST = _MTU - 70
"""Of a packet that fits into an IPv6 packet of 1500 bytes, with the headers of IPv6, UDP, VXLAN and
Ethernet. Over IPv4 a larger clone travels in fragments; over IPv6 the kernel drops it (ip6_fragment
refuses what no local socket has sent)."""

RESET = "meta priority set none"


@dataclass(frozen=True, slots=True)
class Sharing:
    """What the rules name. The maps of exceptions are None where all flows are shared."""

    device: int
    sent_as: MapName
    learned_as: MapName
    hash_choice: MapName | None
    as_hashed: MapName | None
    largest: int = 0
    """Bytes of the largest packet that may be cloned; 0: any."""

    @property
    def all_flows(self) -> bool:
        """Whether the others must know every flow, new ones too."""
        return self.as_hashed is None

    def note_choice(self) -> str:
        """Puts the hash's choice, which is the mark, beside it."""
        return f" meta priority set meta mark map @{self.hash_choice}"

    def as_hashed_match(self) -> str:
        """Matches packets whose flow goes where its hash says."""
        return f"meta mark . meta priority @{self.as_hashed} "

    def exception_match(self) -> str:
        """Matches packets whose flow others must know."""
        return "" if self.all_flows else f"meta mark . meta priority != @{self.as_hashed} "

    def clone(self) -> Rule:
        """Tells the others. Breaks where the packet has no Ethernet header, or the backend no MAC.

        nft puts a test of the interface's kind before it, without which the MAC would be written
        over the header of a packet that came through a tunnel. A device that is gone or down is no
        reason to break: nf_dup_netdev_egress returns.
        """
        mac = f"ether saddr set meta mark map @{self.sent_as}"
        return Rule.of(f"{mac} counter name {FLOWS_SENT} dup to {self.device}")


def plan_sharing_maps(
    state: NumberedState, add_map: Callable[[Kind, Elements], MapName]
) -> Sharing | None:
    """The maps, put into the table by ``add_map``; None where flows are nobody else's business."""
    shared = state.shared_with
    if shared is None:
        return None
    macs = shared_macs(state.services)
    ids: dict[Key, Value] = {mark: mark for mark in macs}
    sent: dict[Key, Value] = {mark: mac for mark, mac in macs.items() if mac is not None}
    learned: dict[Key, Value] = {mac: mark for mark, mac in macs.items() if mac is not None}
    return Sharing(
        device=state.links[SYNC_DEVICE],
        sent_as=add_map(Kind.SENT_AS, sent),
        learned_as=add_map(Kind.LEARNED_AS, learned),
        hash_choice=None if shared.all_flows else add_map(Kind.HASH_CHOICE, ids),
        as_hashed=None if shared.all_flows else add_map(Kind.AS_HASHED, dict.fromkeys(ids)),
        largest=_LARGEST if shared.local.version == 6 else 0,
    )


@lru_cache(maxsize=1 << 16)
def shared_mac(service: str, backend: str) -> int:
    """The source MAC of clones for a backend (``Backend.key``): the same on every balancer."""
    digest = blake2b(f"{service}\0{backend}".encode(), digest_size=5).digest()
    return _LOCAL | int.from_bytes(digest, "big")


def shared_macs(services: Iterable[NumberedService]) -> dict[int, int | None]:
    """The MACs by backend id. Two with one digest (1 in 200 configurations of 100,000 backends has
    such a pair) have none, on every balancer: their flows are not shared."""
    found = {
        backend_id(service.number, backend.number): shared_mac(service.name, backend.key)
        for service in services
        for backend in service.backends
    }
    uses = Counter(found.values())
    return {mark: mac if uses[mac] == 1 else None for mark, mac in found.items()}


def receiving_chain(
    sharing: Sharing, versions: Iterable[int], learns_client: Mapping[int, MapName]
) -> Chain:
    """The base chain of the clones: nothing of them reaches the machine's own stack.

    ``learns_client`` lead to the chains that learn persistent clients first, by IP version.
    """
    learned = f"meta mark set ether saddr map @{sharing.learned_as}"
    rules = []
    for version in versions:
        match = f"{BY_PROTOCOL[version]}{learned}"
        if version in learns_client:
            rules.append(Rule.of(f"{match} meta mark vmap @{learns_client[version]}"))
        rules.append(Rule.of(f"{match} goto learn_shared{version}"))
    return Chain((*rules, Rule.of(f"counter name {FLOWS_UNKNOWN} drop")), SYNC_DEVICE)


def sync_device(shared: SharedWith) -> tuple[TunnelDevice, frozenset[VxlanPeer]]:
    """The device that clones leave and arrive by, and where it sends them."""
    device = TunnelDevice(
        "vxlan",
        shared.local,
        None,
        _MTU,
        ttl=_HOPS,
        fragments=True,
        vni=VNI,
        port=shared.port,
        called=SYNC_DEVICE,
    )
    return device, frozenset(VxlanPeer(SYNC_DEVICE, ANY_MAC, peer) for peer in shared.peers)


def admission_rules(shared: SharedWith) -> tuple[Rule, ...]:
    """The rules of ADMISSION: clones from peers alone. VXLAN itself takes them from anybody.

    Those of peers in a subnet of this machine's have passed no router: whoever forges their
    address from elsewhere cannot say so (GTSM, RFC 5082).
    """
    clone = f"udp dport {shared.port}"
    rules = []
    for version in VERSIONS:
        peers = [peer for peer in sorted(shared.peers, key=int) if peer.version == version]
        for near, hops in ((True, f"{_HOP_LIMIT[version]} {_HOPS} "), (False, "")):
            listed = ", ".join(str(peer) for peer in peers if (peer in shared.near) is near)
            if listed:
                rules.append(Rule.of(f"{clone} {IP[version]} saddr {{ {listed} }} {hops}accept"))
    return (*rules, Rule.of(f"{clone} counter drop"))
