"""Whether a backend hands clients' packets to a container, another machine or another port. Pure.

Docker, podman, kube-proxy and administrators do so by DNAT, REDIRECT or TPROXY in prerouting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

from tula.doctor.backend_state import BackendState
from tula.doctor.chains import SamplePacket, fits_rule
from tula.model.chain import BaseChain, ChainRule
from tula.model.config import IPAddress, Protocol, VirtualService

NAT_PRIORITY = -100
"""That of destination NAT (NF_IP_PRI_NAT_DST): later chains see the new destination."""
_PORT = ("transport", 2, 2)
_MAX_DEPTH = 16
"""Jumps that nftables allows (NFT_JUMP_STACK_SIZE)."""
_MAX_PORTS = 16
"""Ports of a range that are looked at: not all of a wide one need to be served."""


class Redirects(IntEnum):
    """Whether packets for a VIP's port are redirected. YES also where a rule that names the port
    has further conditions: an interface, as in Docker's."""

    NO = 0
    MAYBE = 1
    YES = 2


def redirects_packet(state: BackendState, sample: SamplePacket) -> tuple[Redirects, str]:
    """Whether the backend's rules redirect such a packet, and whose they are."""
    found, where = Redirects.NO, ""
    version = sample.vip.version
    if version in state.legacy_nat:
        found, where = Redirects.MAYBE, "NAT rules of iptables-legacy"
    for chain in state.chains:
        if chain.hook == "prerouting" and chain.family != {4: "ip6", 6: "ip"}[version]:
            walked = _walk(chain.rules, chain, sample, _MAX_DEPTH)
            if walked > found:
                found, where = walked, f"the chain {chain}"
    return found, where


def serves_elsewhere(state: BackendState, vip: IPAddress) -> Redirects:
    """For all that is served on a VIP: the least of them."""
    return min(
        (
            redirects_packet(state, SamplePacket(vip, protocol.number, port))[0]
            for service, _ in state.role.serves
            if vip in service.vips
            for protocol in service.protocols
            for port in served_ports(service) or (None,)
        ),
        default=Redirects.NO,
    )


def served_ports(service: VirtualService) -> list[int]:
    """The first ports of each range; none for ``any``."""
    return [p for r in service.ports for p in range(r.first, min(r.last, r.first + _MAX_PORTS) + 1)]


def first_samples(state: BackendState) -> Iterator[tuple[Protocol, SamplePacket]]:
    """A packet for the first port of each service, by VIP and protocol."""
    for service, _ in state.role.serves:
        for vip in service.vips:
            for protocol in service.protocols:
                port = next(iter(served_ports(service)), None)
                yield protocol, SamplePacket(vip, protocol.number, port)


def _walk(
    rules: Sequence[ChainRule], chain: BaseChain, sample: SamplePacket, depth: int
) -> Redirects:
    """What the rules may do; what others have accepted before is not looked at."""
    found = Redirects.NO
    for rule in rules:
        fits = fits_rule(rule, sample)
        if fits is False:
            continue
        if rule.redirects:
            named = any(match.field == _PORT and match.equal for match in rule.matches)
            found = max(found, Redirects.YES if fits or named else Redirects.MAYBE)
        elif rule.verdict in ("jump", "goto") and depth:
            inner = chain.others.get(rule.chain, ())
            found = max(found, _walk(inner, chain, sample, depth - 1))
        elif rule.verdict == "vmap" and _any_redirects(chain):
            found = max(found, Redirects.MAYBE)
        if fits and rule.verdict in ("drop", "accept", "return", "goto"):
            break
    return found


def _any_redirects(chain: BaseChain) -> bool:
    return any(rule.redirects for rules in chain.others.values() for rule in rules)
