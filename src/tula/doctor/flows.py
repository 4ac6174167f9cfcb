"""Whether balancers can tell each other of flows: the device that clones leave by, and whether
somebody takes them at the other end. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tula.doctor.observation import Observation
from tula.doctor.packets import UDP
from tula.doctor.replies import ReplyKind
from tula.doctor.requests import Request, Responses
from tula.model.finding import Finding, Severity
from tula.model.wording import named

_DEVICE = "tula-sync"
_NOBODYS = 0xFFFFFE
"""A VXLAN network that nobody has: whoever decapsulates there drops the packet."""
_PROBE = struct.pack("!II", 0x08000000, _NOBODYS << 8) + bytes(14)
_CLOSED = {4: (3, 3), 6: (1, 4)}
_EVIDENT = 20
"""Flows that were told, and none of them learned, that can hardly be chance."""


def requests_for_peers(observed: Observation) -> Iterator[Request]:
    """A packet as clones are, which is answered only where nobody takes them. Peers take clones
    from their own subnet with all hops left alone."""
    cluster = observed.cluster
    shared = cluster.shared_with if cluster is not None else None
    for peer in shared.peers if shared is not None else ():
        assert shared is not None
        yield Request(
            UDP, shared.local, peer, port=shared.port, payload=_PROBE, ttl=255, awaited=False
        )  # fmt: skip


def check_flows(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Clones leave here, and are taken there."""
    cluster = observed.cluster
    shared = cluster.shared_with if cluster is not None else None
    if cluster is None or shared is None:
        return
    device = observed.host.links.get(_DEVICE)
    if observed.has_table and (device is None or not device.up):
        what = f"{_DEVICE} is down" if device is not None else f"there is no device {_DEVICE}"
        yield Finding(
            "flows-not-told", Severity.WARNING, _DEVICE,
            f"{what}: other balancers are not told of flows, and none are learned; those whose "
            "backend has changed break when this balancer dies",
            "set it up" if device is not None else "apply the configuration",
            commands=(f"ip link set {_DEVICE} up",) if device is not None else ("tula apply",),
        )  # fmt: skip
    bare = [
        name
        for name in observed.config.interfaces
        if name in observed.host.links and not observed.host.links[name].ethernet
    ]
    if bare:
        yield Finding(
            "flows-not-told", Severity.NOTE, bare[0],
            f"{named(bare)} have no Ethernet header: other balancers are not told of flows that "
            "come in there",
            "let clients' packets arrive on an Ethernet interface, or accept it",
        )  # fmt: skip
    for request in requests_for_peers(observed):
        name = cluster.names.get(request.destination, str(request.destination))
        errors = [r for r in responses.to(request) if r.kind is ReplyKind.ERROR]
        if errors:
            reply = errors[0]
            closed = reply.icmp == _CLOSED[reply.source.version]
            yield Finding(
                "flows-not-taken", Severity.WARNING, name,
                f"UDP port {shared.port} of {name} ({request.destination}) "
                + ("is closed" if closed else f"is rejected by {reply.source}")
                + ": it learns no flows of this machine",
                f"apply the configuration on {name}"
                if closed
                else f"allow UDP port {shared.port} between the balancers",
            )  # fmt: skip
        elif _unheard(observed, name):
            yield Finding(
                "flows-not-taken", Severity.NOTE, name,
                f"this machine has told flows, and {name} has learned none since it started",
                f"if clients' connections go on meanwhile, something drops UDP port {shared.port} "
                "between the balancers",
                certain=False,
            )  # fmt: skip


def _unheard(observed: Observation, name: str) -> bool:
    cluster = observed.cluster
    peer = cluster.peer(name) if cluster is not None else None
    if cluster is None or peer is None or not peer.get("alive"):
        return False
    sent = ((cluster.status or {}).get("flows") or {}).get("sent") or 0
    learned = (peer.get("flows") or {}).get("learned")
    return sent >= _EVIDENT and learned == 0
