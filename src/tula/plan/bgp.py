"""The BGP sessions of this machine: with which routers, from which addresses, for which families.

A router is reached on-link when one of this machine's subnets holds its address, else by multihop.
IPv4 VIPs go over sessions of IPv4, IPv6 VIPs over those of IPv6. Where no router is configured by
an address of a family, the sessions of the other carry it too (RFC 4760).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from tula.model.announce import announced_by
from tula.model.announcing import Announcing
from tula.model.bgp import BgpSession, DesiredBgp
from tula.model.config import Config, IPAddress
from tula.model.host import HostAddress, HostView
from tula.model.problem import Problem
from tula.plan.high_availability import own_balancer


@dataclass(frozen=True, slots=True)
class BgpPlan:
    """The sessions that there can be, and why there are not more of them."""

    desired: DesiredBgp | None = None
    problems: tuple[Problem, ...] = ()


def bgp_routers(config: Config) -> set[IPAddress]:
    """The destinations whose routes ``plan_bgp`` needs in its HostView."""
    bgp = config.high_availability.bgp
    return {router for router, _ in bgp.routers} if bgp is not None else set()


def with_bgp(announcing: Announcing | None, config: Config, host: HostView) -> Announcing | None:
    """With what BGP is to be."""
    if announcing is None:
        return None
    return replace(announcing, bgp=plan_bgp(config, host).desired)


def plan_bgp(config: Config, host: HostView) -> BgpPlan:
    """The sessions with all routers; nothing where the configuration has no BGP."""
    bgp = config.high_availability.bgp
    if bgp is None:
        return BgpPlan()
    own = _own_addresses(config, host)
    balancer = own_balancer(config, host)
    preferred = balancer[1] if balancer is not None else None
    versions: set[int] = {router.version for router, _ in bgp.routers}
    sessions, problems = [], []
    for router, number in bgp.routers:
        path = ("high_availability", "bgp", "routers", str(router))
        if any(held.address.ip == router for held in own):
            problems.append(Problem(path, f"{router} is this machine's own; give the router's"))
            continue
        if router.is_link_local:
            problems.append(Problem(path, f"{router} is link-local; give a global address of it"))
            continue
        local = _local(router, own, preferred, host)
        if local is None:
            problems.append(
                Problem(
                    path, f"no IPv{router.version} address here to reach {router} from; add one"
                )
            )
            continue
        address, interface = local
        next_hops = ((router.version, None), *_next_hops(versions, own, interface, preferred))
        sessions.append(BgpSession(router, number, address, interface, next_hops))
    problems += _uncarried(config, sessions)
    if not sessions:
        return BgpPlan(problems=tuple(problems))
    router_id = _router_id(preferred or sessions[0].local)
    return BgpPlan(DesiredBgp(router_id, bgp.number, bgp.bfd, tuple(sessions)), tuple(problems))


def _own_addresses(config: Config, host: HostView) -> list[HostAddress]:
    """The addresses that stay on this machine."""
    vips = {vip for service in config.services for vip in service.vips}
    return [
        held
        for held in host.addresses
        if held.native and held.address.ip not in vips and not held.address.ip.is_loopback
    ]


def _local(
    router: IPAddress, own: list[HostAddress], preferred: IPAddress | None, host: HostView
) -> tuple[IPAddress, str] | None:
    """The address to reach a router from, and the interface if it is on-link."""
    near = [
        held
        for held in own
        if held.address.version == router.version
        and router in held.address.network
        and held.address.network.prefixlen < held.address.max_prefixlen
    ]
    # The narrowest subnet, as the kernel routes; among equals the address that all know.
    near.sort(key=lambda held: (-held.address.network.prefixlen, held.address.ip != preferred))
    if near:
        return near[0].address.ip, near[0].interface
    if preferred is not None and preferred.version == router.version:
        return preferred, ""
    route = host.routes.get(router)
    source = route.source if route is not None else None
    return (source, "") if source is not None else None


def _next_hops(
    versions: set[int], own: list[HostAddress], interface: str, preferred: IPAddress | None
) -> Iterator[tuple[int, IPAddress | None]]:
    """What a session tells of VIPs of the family that no router is configured by."""
    for other in {4, 6} - versions:
        found = [
            held.address.ip
            for held in own
            if held.address.version == other
            and not held.address.ip.is_link_local
            and (not interface or held.interface == interface)
        ]
        if found:
            yield other, preferred if preferred in found else found[0]
        elif other == 4:
            yield other, None


def _uncarried(config: Config, sessions: list[BgpSession]) -> Iterator[Problem]:
    """VIPs of IPv6 that no session carries: IPv4 has no next hop for them."""
    if not sessions or any(version == 6 for each in sessions for version, _ in each.next_hops):
        return
    for service in config.services:
        vip = next((vip for vip in service.vips if vip.version == 6), None)
        if vip is not None and announced_by(config, service) == "bgp":
            yield Problem(
                ("services", service.name, "vip"),
                f"no router would hear of {vip}: all are named by IPv4 addresses, and this machine "
                "has no IPv6 address towards them; add one, or name a router by its IPv6 address",
            )


def _router_id(own: IPAddress) -> IPv4Address:
    """The BGP identifier (RFC 6286): any number that no other speaker in the network has. Where
    the balancer is known by IPv6 it is made of that address, and looks as one of 10.0.0.0/8: of
    other ranges FRR refuses some."""
    if isinstance(own, IPv4Address):
        return own
    digest = hashlib.sha256(own.packed).digest()
    return IPv4Address(bytes((10, *digest[:3])))
