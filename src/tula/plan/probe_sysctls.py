"""What an interface must allow, so that the answers to probes come in: from a VIP, to this machine.

Linux looks for the way back to an IPv4 packet's source (fib_validate_source, fib_frontend.c). A
source that is this machine's own address, as a VIP may be, passes with ``accept_local``, and not
under the strict ``rp_filter`` (1); one without any route only without the filter (0). For an
interface the greater of its own value and that of ``all`` counts; ``accept_local`` of either does.
IPv6 has no such check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tula.model.config import IPAddress
from tula.model.host import HostView
from tula.plan.reach import Reach

OFF, STRICT, LOOSE = 0, 1, 2
_ANY = frozenset({OFF, STRICT, LOOSE})
_WHAT = ("rp_filter", "accept_local")


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers from this VIP come in on this interface."""

    interface: str
    vip: IPAddress


@dataclass(frozen=True, slots=True)
class Need:
    """What one interface must allow: its own address as a source, and which ``rp_filter``."""

    local: bool = False
    filters: frozenset[int] = _ANY

    def __or__(self, other: Need) -> Need:
        return Need(self.local or other.local, self.filters & other.filters)


def plan_needs(answers: Iterable[Answer], host: HostView, reach: Reach) -> dict[str, Need]:
    """By interface. ``host`` tells the routes to the VIPs; without one it counts as none."""
    held = {address.address.ip for address in host.addresses if not address.ours}
    here = held | {vip.address for vip in reach.held}
    needs: dict[str, Need] = {}
    for answer in answers:
        if answer.vip.version == 4:
            need = _need(answer, host, local=answer.vip in here)
            needs[answer.interface] = needs.get(answer.interface, Need()) | need
    return dict(sorted(needs.items()))


def _need(answer: Answer, host: HostView, *, local: bool) -> Need:
    route = host.routes.get(answer.vip)
    if local or (route is not None and route.kind == "local" and not _ours(answer.vip, host)):
        return Need(local=True, filters=frozenset({OFF, LOOSE}))
    if route is None or route.kind != "unicast":
        return Need(filters=frozenset({OFF}))
    if route.interface == answer.interface:
        return Need()
    return Need(filters=frozenset({OFF, LOOSE}))


def _ours(vip: IPAddress, host: HostView) -> bool:
    """Whether it is local only by an address that Tula takes back now."""
    return any(held.ours and held.address.ip == vip for held in host.addresses)


def setting(interface: str, what: str) -> str:
    """The path below /proc/sys."""
    return f"net/ipv4/conf/{interface}/{what}"


def is_setting(name: str, value: str) -> bool:
    """Whether it may be one of those that are set here, and such a value of it."""
    parts = name.split("/")
    known = parts[:3] == ["net", "ipv4", "conf"] and len(parts) == 5 and parts[4] in _WHAT
    return known and parts[3] not in ("", ".", "..") and value.isascii() and value.isdecimal()


def settings_to_read(interfaces: Iterable[str]) -> list[str]:
    """What ``plan_probe_sysctls`` wants to know of a machine with these interfaces."""
    names = ["all", "default", *sorted(interfaces)]
    return [setting(name, what) for name in names for what in _WHAT]


def plan_probe_sysctls(
    needs: Mapping[str, Need], present: Mapping[str, str], interfaces: Iterable[str]
) -> dict[str, str]:
    """The settings to make, in this order; what suffices is left as it is.

    ``present`` are the values by name, without Tula's doing.
    """
    made: dict[str, str] = {}

    def value(interface: str, what: str) -> int:
        text = present.get(setting(interface, what), "0")
        return int(text) if text.isdecimal() else 0

    above = value("all", "rp_filter")
    known = {name: need for name, need in needs.items() if setting(name, "rp_filter") in present}
    if any(need.filters == {OFF} for need in known.values()) and above != OFF:
        # "all" forbids it: the other interfaces, and those to come, get what they had by it.
        for name in ("default", *sorted(interfaces)):
            own = value(name, "rp_filter")
            if setting(name, "rp_filter") in present and own < above and name not in known:
                made[setting(name, "rp_filter")] = str(above)
        kept, above = above, OFF
        made[setting("all", "rp_filter")] = str(OFF)
    else:
        kept = above
    for name, need in known.items():
        had = max(value(name, "rp_filter"), kept)
        # What it had, if that may be; else the strictest that may be.
        wanted = had if had in need.filters else max(need.filters)
        if max(value(name, "rp_filter"), above) != wanted:
            made[setting(name, "rp_filter")] = str(wanted)
        if need.local and not value("all", "accept_local") and not value(name, "accept_local"):
            made[setting(name, "accept_local")] = "1"
    return made


def unmet_needs(needs: Mapping[str, Need], values: Mapping[str, str]) -> list[str]:
    """The interfaces that do not allow what they must, by the kernel's values now."""

    def value(interface: str, what: str) -> int:
        text = values.get(setting(interface, what), "0")
        return int(text) if text.isdecimal() else 0

    def met(name: str, need: Need) -> bool:
        local = value("all", "accept_local") or value(name, "accept_local")
        strictest = max(value("all", "rp_filter"), value(name, "rp_filter"))
        return strictest in need.filters and bool(local or not need.local)

    known = (name for name in needs if setting(name, "rp_filter") in values)
    return [name for name in known if not met(name, needs[name])]
