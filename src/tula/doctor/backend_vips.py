"""Whether a backend has its VIPs, where, and by which way its answers go. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.commands import make_vip, remove_vip
from tula.doctor.own_side import OwnSide
from tula.doctor.scene import STRAYS, Scene
from tula.model.backend_setup import VipAddress
from tula.model.finding import Finding, Severity

_QUIET = ("lo", "dummy", "sit", "ipip", "ip6tnl", "gre", "ip6gre", "vxlan")
"""Kinds of devices on which an address is announced to nobody who counts."""


def judge_addresses(scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """Each VIP is on lo or the like, and on no interface where it would be announced."""
    vips = dict.fromkeys(held.vip for held in own.want.vips)
    for vip in vips:
        devices = sorted(name for address, name in own.facts.addresses if address == vip)
        if vip in own.facts.balanced:
            continue  # this machine balances it as well
        loud = [name for name in devices if not _quiet(own, name)]
        quiet = [name for name in devices if name not in loud]
        held = str(make_vip(VipAddress(vip, "lo")))
        if not devices:
            yield Finding(
                "vip-missing", Severity.ERROR, str(vip),
                f"this machine does not have {vip}, and takes no packets for it",
                "give it the VIP where it is announced to nobody, or join: tula backend join",
                commands=(held,),
            )  # fmt: skip
        for name in loud:
            away = str(remove_vip(VipAddress(vip, name)))
            length = _prefix_length(scene, vip, name)
            away = away.replace(f"/{vip.max_prefixlen} ", f"/{length} ")
            yield Finding(
                "vip-announced", Severity.ERROR, name,
                f"{vip} is on {name}: this machine announces it there, as the balancer does",
                "move it to lo, or join: tula backend join",
                commands=(away,) if quiet else (away, held),
            )  # fmt: skip


def _quiet(own: OwnSide, name: str) -> bool:
    link = own.facts.links.get(name)
    return name == "lo" or (link is not None and link.kind in _QUIET)


def _prefix_length(scene: Scene, vip: object, name: str) -> int:
    return next(
        held.address.network.prefixlen
        for held in scene.host.addresses
        if held.address.ip == vip and held.interface == name
    )


def judge_gateway(scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """Answers to clients elsewhere go by a router, and not by a balancer."""
    balancers = {address: name for name, address in scene.config.load_balancers}
    versions = {held.vip.version for held in own.want.vips}
    for version in sorted(versions):
        route = scene.host.routes.get(STRAYS[version])
        if route is None or route.kind != "unicast":
            yield Finding(
                "no-default-route", Severity.NOTE, f"IPv{version}",
                "this machine has no way to addresses elsewhere: it answers clients on its own "
                "networks alone",
                "give it a default route, if clients are elsewhere",
            )  # fmt: skip
        elif route.gateway in balancers:
            family = "-6 " if version == 6 else ""
            yield Finding(
                "answers-through-balancer", Severity.ERROR, route.interface,
                f"the default route is by {route.gateway}, which is the balancer "
                f"{balancers[route.gateway]}: answers go back through it",
                f"set the default route to a router: ip {family}route replace default via ROUTER",
            )  # fmt: skip
