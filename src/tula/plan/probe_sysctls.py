"""Sysctls of interfaces, so that replies to probes are accepted: their source address is a VIP.

Linux checks the route back to an IPv4 packet's source (fib_validate_source, fib_frontend.c). If
the source is one of this machine's own addresses, as a VIP may be, the packet needs
``accept_local`` and is dropped by the strict ``rp_filter`` (1); if there is no route to it, it
needs ``rp_filter`` 0. The larger ``rp_filter`` of the interface and of ``all`` applies;
``accept_local`` on either of them suffices. IPv6 has no such check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tula.model.config import IPAddress
from tula.model.host import HostView
from tula.plan.routes import Routes

OFF, STRICT, LOOSE = 0, 1, 2
_ANY = frozenset({OFF, STRICT, LOOSE})
_WHAT = ("rp_filter", "accept_local")


@dataclass(frozen=True, slots=True)
class ReplyPath:
    """Replies from this VIP arrive on this interface."""

    interface: str
    vip: IPAddress


@dataclass(frozen=True, slots=True)
class InterfaceRequirement:
    """What replies need of one interface: ``accept_local``, and an ``rp_filter`` out of these."""

    accept_local: bool = False
    rp_filters: frozenset[int] = _ANY

    def __or__(self, other: InterfaceRequirement) -> InterfaceRequirement:
        accept_local = self.accept_local or other.accept_local
        return InterfaceRequirement(accept_local, self.rp_filters & other.rp_filters)


def plan_requirements(
    replies: Iterable[ReplyPath], host: HostView, routes: Routes
) -> dict[str, InterfaceRequirement]:
    """By interface. ``host`` has the routes to the VIPs; a missing one means no route."""
    held = {address.address.ip for address in host.addresses if address.native}
    here = held | {vip.address for vip in routes.local}
    needs: dict[str, InterfaceRequirement] = {}
    for reply in replies:
        if reply.vip.version == 4:
            requirement = _requirement(reply, host, local=reply.vip in here)
            known = needs.get(reply.interface, InterfaceRequirement())
            needs[reply.interface] = known | requirement
    return dict(sorted(needs.items()))


def _requirement(reply: ReplyPath, host: HostView, *, local: bool) -> InterfaceRequirement:
    route = host.routes.get(reply.vip)
    if local or (route is not None and route.kind == "local" and not _ours(reply.vip, host)):
        return InterfaceRequirement(accept_local=True, rp_filters=frozenset({OFF, LOOSE}))
    if route is None or route.kind != "unicast":
        return InterfaceRequirement(rp_filters=frozenset({OFF}))
    if route.interface == reply.interface:
        return InterfaceRequirement()
    return InterfaceRequirement(rp_filters=frozenset({OFF, LOOSE}))


def _ours(vip: IPAddress, host: HostView) -> bool:
    """Whether it is local only because of an address that Tula added."""
    return any(not held.native and held.address.ip == vip for held in host.addresses)


def setting(interface: str, what: str) -> str:
    """The path below /proc/sys of an interface's setting."""
    return f"net/ipv4/conf/{interface}/{what}"


def is_setting(name: str, value: str) -> bool:
    """Whether it may be one of those that are set here, and such a value of it."""
    parts = name.split("/")
    known = parts[:3] == ["net", "ipv4", "conf"] and len(parts) == 5 and parts[4] in _WHAT
    return known and parts[3] not in ("", ".", "..") and value.isascii() and value.isdecimal()


def settings_to_read(interfaces: Iterable[str]) -> list[str]:
    """The names of the values that ``plan_probe_sysctls`` needs, for these interfaces."""
    names = ["all", "default", *sorted(interfaces)]
    return [setting(name, what) for name in names for what in _WHAT]


def plan_probe_sysctls(
    needs: Mapping[str, InterfaceRequirement], present: Mapping[str, str], interfaces: Iterable[str]
) -> dict[str, str]:
    """The sysctls to write, in this order; values that suffice stay as they are.

    ``present`` are the values by name, as they would be without Tula.
    """
    made: dict[str, str] = {}

    def value(interface: str, what: str) -> int:
        text = present.get(setting(interface, what), "0")
        return int(text) if text.isdecimal() else 0

    above = value("all", "rp_filter")
    known = {
        name: requirement
        for name, requirement in needs.items()
        if setting(name, "rp_filter") in present
    }
    if any(requirement.rp_filters == {OFF} for requirement in known.values()) and above != OFF:
        # "all" is too strict. The other and future interfaces get the value that they had from it.
        for name in ("default", *sorted(interfaces)):
            own = value(name, "rp_filter")
            if setting(name, "rp_filter") in present and own < above and name not in known:
                made[setting(name, "rp_filter")] = str(above)
        kept, above = above, OFF
        made[setting("all", "rp_filter")] = str(OFF)
    else:
        kept = above
    for name, requirement in known.items():
        had = max(value(name, "rp_filter"), kept)
        # What it had, if that is acceptable; otherwise the strictest acceptable one.
        wanted = had if had in requirement.rp_filters else max(requirement.rp_filters)
        if max(value(name, "rp_filter"), above) != wanted:
            made[setting(name, "rp_filter")] = str(wanted)
        if (
            requirement.accept_local
            and not value("all", "accept_local")
            and not value(name, "accept_local")
        ):
            made[setting(name, "accept_local")] = "1"
    return made


def unmet_requirements(
    needs: Mapping[str, InterfaceRequirement], values: Mapping[str, str]
) -> list[str]:
    """The interfaces that do not meet their requirement, by the kernel's current values."""

    def value(interface: str, what: str) -> int:
        text = values.get(setting(interface, what), "0")
        return int(text) if text.isdecimal() else 0

    def met(name: str, requirement: InterfaceRequirement) -> bool:
        local = value("all", "accept_local") or value(name, "accept_local")
        strictest = max(value("all", "rp_filter"), value(name, "rp_filter"))
        return strictest in requirement.rp_filters and bool(local or not requirement.accept_local)

    known = (name for name in needs if setting(name, "rp_filter") in values)
    return [name for name in known if not met(name, needs[name])]
