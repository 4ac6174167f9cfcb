"""What a machine does to ``high_availability`` that is right by itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tula.model.config import Config, IPAddress
from tula.model.desired import Announce
from tula.model.host import HostView
from tula.model.problem import Problem
from tula.model.wording import named
from tula.plan.cautions import Caution
from tula.plan.high_availability import own_balancer, plan_sharing, vips_by

_KEY = ("high_availability",)
_SHOWN = 4


def balancer_problems(config: Config, host: HostView) -> Iterator[Problem]:
    """Why this machine cannot be one of the balancers: it is none, or has no interface for
    adverts."""
    settings = config.high_availability
    if not settings.enabled:
        return
    if config.load_balancers and own_balancer(config, host) is None:
        here = [held.address.ip for held in host.addresses if held.native]
        shown = [str(each) for each in here if not (each.is_loopback or each.is_link_local)]
        has = ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")
        message = (
            f"none of them is an address of this machine, which has {has or 'none'}; list this "
            "machine, or correct its address"
        )
        yield Problem(("load_balancers",), message, on_key=True)
    held = {held.address.ip for held in host.addresses if held.native}
    own = [name for name, address in config.load_balancers if address in held]
    if len(own) > 1:
        message = f"{named(own)} are addresses of this machine, which is one balancer; list it once"
        yield Problem(("load_balancers", own[1]), message)
    vrrp = settings.vrrp
    if vrrp is not None and vrrp.interface and vrrp.interface not in host.links:
        known = ", ".join(sorted(name for name in host.links if name != "lo"))
        message = f"no interface {vrrp.interface!r} here; this machine has {known}"
        yield Problem((*_KEY, "vrrp", "interface"), message)


def balancer_cautions(config: Config, host: HostView) -> Iterator[Caution]:
    """What takes something from it, and keeps nothing from being done."""
    yield from _cannot_clone(config, host)
    yield from _routers_elsewhere(config, host)


def _cannot_clone(config: Config, host: HostView) -> Iterator[Caution]:
    """The kernel clones whole frames: where packets come without Ethernet header there are none."""
    if plan_sharing(config, host) is None:
        return
    for position, name in enumerate(config.interfaces):
        link = host.links.get(name)
        if link is not None and not link.ethernet:
            yield Caution(
                "flows-not-shared", name, ("interfaces", position),
                f"{name} has no Ethernet header, so flows that arrive there cannot be told to the "
                "other balancers; those whose backend is not what the hash says break when "
                "another takes over",
                "let clients' packets arrive by an Ethernet interface, or set "
                "high_availability: {flows: none}",
            )  # fmt: skip


def _routers_elsewhere(config: Config, host: HostView) -> Iterator[Caution]:
    """Packets come from the routers that were told of the VIPs."""
    bgp = config.high_availability.bgp
    if bgp is None or not vips_by(config, Announce.BGP):
        return
    told: set[str] = set()
    for router, _ in bgp.routers:
        name = _towards(router, host)
        if not name or name in config.interfaces or name in told:
            continue
        told.add(name)
        yield Caution(
            "interface-not-listed", name, (*_KEY, "bgp", "routers"),
            f"router {router} is on {name}, so packets for the VIPs come by it, and it is not "
            "listed under interfaces: what arrives there is not forwarded",
            f"list {name} under interfaces",
        )  # fmt: skip


def _towards(router: IPAddress, host: HostView) -> str:
    """The interface whose subnet has it; empty where it is reached by others."""
    near = [
        (held.address.network.prefixlen, held.interface)
        for held in host.addresses
        if held.native and router in held.address.network
    ]
    return max(near)[1] if near else ""
