"""Whether a backend unpacks its tunnels, and whose. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.commands import (
    make_device,
    make_filter,
    make_port,
    make_vip,
    remove_device,
    rp_filter_of,
    set_device,
)
from tula.doctor.own_side import OwnSide
from tula.doctor.scene import Scene
from tula.model.backend_setup import Device, ObservedLink, VipAddress
from tula.model.config import Forwarding
from tula.model.finding import Finding, Severity

_SAME = {
    "sit": {"sit", "ipip"},
    "ip6tnl": {"ip6tnl"},
    "gre": {"gre"},
    "ip6gre": {"ip6gre"},
    "vxlan": {"vxlan"},
}
"""Kinds of device that unpack the same packets."""
_KEYS = ("remote", "local", "id", "port", "local6")


def judge_ends(_scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """Each end is there, under whatever name, is up, and is of the right kind, id and key."""
    for port in own.want.ports:
        if port not in own.facts.ports:
            yield Finding(
                "tunnel-missing", Severity.ERROR, f"gue port {port.port}",
                f"nothing unpacks GUE on UDP port {port.port} (ip fou show)",
                "make the port, or join: tula backend join",
                commands=(str(make_port(port)),),
            )  # fmt: skip
    for end in own.want.devices:
        # By its own name first: what is wrong with it is told then.
        links = own.facts.links
        candidates = [name for name in links if links[name].kind in _SAME.get(end.kind, ())]
        right = [name for name in candidates if _fits(end, links[name])]
        if any(links[name].up for name in right):
            continue
        # Fallback devices such as gre0, set up, would take packets of everyone.
        remote = dict(end.attributes).get("remote")
        right = [name for name in right if links[name].attributes.get("remote") == remote]
        again = [str(c) for c in make_device(end)]
        again += [str(make_vip(held)) for held in own.want.vips if held.device == end.name]
        if right:
            yield Finding(
                "tunnel-missing", Severity.ERROR, right[0],
                f"{right[0]}, the end of a tunnel, is down",
                "set it up",
                commands=(f"ip link set {right[0]} up",),
            )  # fmt: skip
            continue
        other = end.name if end.name in links else next(iter(_near(end, own, candidates)), "")
        evidence = (
            f"{other} is another end than the document has: {_difference(end, links[other])}"
            if other
            else f"there is no {end.kind} device that unpacks it ({' '.join(end.options)})"
        )
        # A device that only resembles it may be somebody's, unless it is in the way.
        first = (str(remove_device(Device(other, ""))),) if other else ()
        yield Finding(
            "tunnel-missing", Severity.ERROR, end.name, evidence,
            "make it, or join: tula backend join",
            commands=(*first, *again),
        )  # fmt: skip


def _near(end: Device, own: OwnSide, candidates: list[str]) -> Iterator[str]:
    """Devices that take the end's place in the kernel, with something else about them."""
    told = dict(end.attributes)
    for name in candidates:
        link = own.facts.links[name]
        if end.kind == "vxlan":
            if (link.attributes.get("id"), link.attributes.get("port")) == (
                told["id"],
                told["port"],
            ):
                yield name
        elif (
            link.attributes.get("local") == told["local"]
            and link.attributes.get("remote") == told["remote"]
        ):
            yield name


def _fits(end: Device, link: ObservedLink) -> bool:
    return not _difference(end, link)


def _difference(end: Device, link: ObservedLink) -> str:
    """What keeps a device from unpacking the end's packets."""
    if link.kind not in _SAME.get(end.kind, ()):
        return f"it is of kind {link.kind or 'none'}, not {end.kind}"
    if end.mac and link.mac != end.mac:
        return f"its MAC is {link.mac}, balancers send to {end.mac}"
    for key, value in end.attributes:
        told = link.attributes.get(key)
        if key in _KEYS and told != value and not (key in ("local", "remote") and told == "any"):
            return f"its {key} is {told}, not {value}"
    for key in ("ikey", "key"):
        if (value := link.attributes.get(key)) not in (None, 0, "0.0.0.0"):
            return f"it takes packets with the key {value} alone, and balancers send none"
    return ""


def judge_reverse_path(scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """What comes in by a tunnel is answered by another interface, which a strict filter refuses."""
    links = own.facts.links
    four = any(held.vip.version == 4 for held in own.want.vips)
    for end in own.want.devices:
        right = (
            [name for name in links if _fits(end, links[name])]
            if four and end.loose_rp_filter
            else []
        )
        for name in right:
            value = own.effective(name, "rp_filter")
            has_address = any(
                device == name and address.version == 4 for address, device in own.facts.addresses
            )
            if not value or (value == 2 and has_address):
                continue
            vip = next(held.vip for held in own.want.vips if held.vip.version == 4)
            commands = [str(set_device(Device(name, "", loose_rp_filter=True))[-1])]
            if not has_address:
                commands.append(str(make_vip(VipAddress(vip, name))))
            yield Finding(
                "rp-filter", Severity.ERROR, name,
                f"rp_filter comes out as {value} on {name}"
                + ("" if has_address else ", which has no IPv4 address")
                + ": packets from clients that are not behind it are dropped",
                f"set {rp_filter_of(Device(name, '')).replace('/', '.')} to 2 (loose) and give it "
                "a VIP, which loose filtering needs, or join: tula backend join",
                commands=tuple(commands),
            )  # fmt: skip
    yield from _strict_interfaces(scene, own, four)


def _strict_interfaces(scene: Scene, own: OwnSide, four: bool) -> Iterator[Finding]:
    """l2: requests come in by the balancer's network, and answers may leave by another."""
    if not four or not any(s.forwarding is Forwarding.L2 for s, _ in own.role.serves):
        return
    served = {address for _, backend in own.role.serves for address in backend.addresses}
    leaving = {
        route.interface
        for to, route in scene.host.routes.items()
        if to.version == 4 and route.kind == "unicast" and to not in scene.names
    }
    for held in scene.host.addresses:
        name = held.interface
        if held.address.ip not in served or held.address.version != 4 or name in leaving:
            continue
        if leaving and own.effective(name, "rp_filter") == 1:
            yield Finding(
                "rp-filter", Severity.WARNING, name,
                f"rp_filter is strict on {name}, where the balancer's packets come in, and answers "
                f"leave by {', '.join(sorted(leaving))}: packets of clients there are dropped",
                "make it loose",
                certain=False,
                commands=(str(set_device(Device(name, "", loose_rp_filter=True))[-1]),),
            )  # fmt: skip


def judge_filter(_scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """The table that clamps segments and takes tunnels of balancers alone; where one joined."""
    if not own.want.filter or not any(e.loose_rp_filter for e in own.want.devices):
        return
    there = own.facts.filter
    if not there:
        yield Finding(
            "mss-not-clamped", Severity.WARNING, "nftables",
            "there is no table inet tula_backend: if nothing else lowers the segments' size of "
            "answers, full-size packets are lost in the tunnels; and whoever reaches the tunnels' "
            "ends may send into them",
            "load the table, or join: tula backend join",
            certain=False,
            commands=(str(make_filter(own.want.filter)),),
        )  # fmt: skip
    elif "maxseg size set" not in there:
        yield Finding(
            "mss-not-clamped", Severity.ERROR, "nftables",
            "the table inet tula_backend clamps no segments: full-size packets are lost",
            "load the table, or join: tula backend join",
            commands=(str(make_filter(own.want.filter)),),
        )  # fmt: skip
