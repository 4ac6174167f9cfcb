"""Whether a backend decapsulates its tunnels, and only those of balancers. Pure."""

from __future__ import annotations

import re
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
from tula.doctor.backend_state import BackendState
from tula.doctor.observation import Observation
from tula.model.backend_setup import Device, ObservedLink, VipAddress
from tula.model.config import Forwarding, IPAddress
from tula.model.finding import Finding, Severity

_EQUIVALENT = {
    "sit": {"sit", "ipip"},
    "ip6tnl": {"ip6tnl"},
    "gre": {"gre"},
    "ip6gre": {"ip6gre"},
    "vxlan": {"vxlan"},
}
"""Types of device that decapsulate the same packets."""
_GATE = re.compile(r"\budp dport (\d+)\b.* (ip6?) saddr != (\{[^}]*\}|\S+)")
_KEYS = ("remote", "local", "id", "port", "local6")


def check_tunnel_devices(_observed: Observation, state: BackendState) -> Iterator[Finding]:
    """Each tunnel device exists, under whatever name, is up, and has the right type, id and key."""
    for port in state.want.ports:
        if port not in state.facts.ports:
            yield Finding(
                "tunnel-missing", Severity.ERROR, f"gue port {port.port}",
                f"GUE on UDP port {port.port} is not decapsulated (ip fou show)",
                "add the port, or run tula backend join",
                commands=(str(make_port(port)),),
            )  # fmt: skip
    for end in state.want.devices:
        # By its own name first, so that what is wrong with it is reported.
        links = state.facts.links
        candidates = [name for name in links if links[name].kind in _EQUIVALENT.get(end.kind, ())]
        right = [name for name in candidates if _fits(end, links[name])]
        if any(links[name].up for name in right):
            continue
        # Fallback devices such as gre0, when up, would accept packets from anyone.
        remote = dict(end.attributes).get("remote")
        right = [name for name in right if links[name].attributes.get("remote") == remote]
        create = [str(c) for c in make_device(end)]
        create += [str(make_vip(held)) for held in state.want.vips if held.device == end.name]
        if right:
            yield Finding(
                "tunnel-missing", Severity.ERROR, right[0],
                f"the tunnel device {right[0]} is down",
                "set it up",
                commands=(f"ip link set {right[0]} up",),
            )  # fmt: skip
            continue
        other = end.name if end.name in links else next(iter(_similar(end, state, candidates)), "")
        evidence = (
            f"{other} differs from the configuration: {_difference(end, links[other])}"
            if other
            else f"there is no {end.kind} device for it ({' '.join(end.options)})"
        )
        # A device that is only similar may be somebody's; it is removed only if it is in the way.
        remove = (str(remove_device(Device(other, ""))),) if other else ()
        yield Finding(
            "tunnel-missing", Severity.ERROR, end.name, evidence,
            "create the device, or run tula backend join",
            commands=(*remove, *create),
        )  # fmt: skip


def _similar(end: Device, state: BackendState, candidates: list[str]) -> Iterator[str]:
    """Devices that occupy this one's place in the kernel, but differ otherwise."""
    want = dict(end.attributes)
    for name in candidates:
        have = state.facts.links[name].attributes
        if end.kind == "vxlan":
            if (have.get("id"), have.get("port")) == (want["id"], want["port"]):
                yield name
        elif (have.get("local"), have.get("remote")) == (want["local"], want["remote"]):
            yield name


def _fits(end: Device, link: ObservedLink) -> bool:
    return not _difference(end, link)


def _difference(end: Device, link: ObservedLink) -> str:
    """What keeps a device from decapsulating the packets; empty if nothing does."""
    if link.kind not in _EQUIVALENT.get(end.kind, ()):
        return f"its type is {link.kind or 'unknown'}, not {end.kind}"
    if end.mac and link.mac != end.mac:
        return f"its MAC is {link.mac}, and balancers send to {end.mac}"
    for key, value in end.attributes:
        have = link.attributes.get(key)
        if key in _KEYS and have != value and not (key in ("local", "remote") and have == "any"):
            return f"its {key} is {have}, not {value}"
    for key in ("ikey", "key"):
        if link.attributes.get(key) not in (None, 0, "0.0.0.0"):
            return (
                f"it accepts only packets with key {link.attributes[key]}, and balancers send none"
            )
    return ""


def check_tunnel_reverse_path(observed: Observation, state: BackendState) -> Iterator[Finding]:
    """Packets from a tunnel are answered by another interface, which a strict filter refuses."""
    links = state.facts.links
    ipv4 = any(held.vip.version == 4 for held in state.want.vips)
    for end in state.want.devices:
        right = (
            [name for name in links if _fits(end, links[name])]
            if ipv4 and end.loose_rp_filter
            else []
        )
        for name in right:
            value = state.effective(name, "rp_filter")
            has_address = any(
                device == name and address.version == 4 for address, device in state.facts.addresses
            )
            if not value or (value == 2 and has_address):
                continue
            vip = next(held.vip for held in state.want.vips if held.vip.version == 4)
            commands = [str(set_device(Device(name, "", loose_rp_filter=True))[-1])]
            if not has_address:
                commands.append(str(make_vip(VipAddress(vip, name))))
            yield Finding(
                "rp-filter", Severity.ERROR, name,
                f"the effective rp_filter is {value} on {name}"
                + ("" if has_address else ", which has no IPv4 address")
                + ": it drops packets from clients whose route is another interface",
                f"set {rp_filter_of(Device(name, '')).replace('/', '.')} to 2 (loose) and add a "
                "VIP to the device, which loose filtering needs, or run tula backend join",
                commands=tuple(commands),
            )  # fmt: skip
    yield from _strict_interfaces(observed, state, ipv4)


def _strict_interfaces(observed: Observation, state: BackendState, ipv4: bool) -> Iterator[Finding]:
    """l2: requests arrive on the balancer's network, and answers may leave by another one."""
    if not ipv4 or not any(s.forwarding_of(b) is Forwarding.L2 for s, b in state.role.serves):
        return
    served = {address for _, backend in state.role.serves for address in backend.addresses}
    leaving = {
        route.interface
        for to, route in observed.host.routes.items()
        if to.version == 4 and route.kind == "unicast" and to not in observed.names
    }
    for held in observed.host.addresses:
        name = held.interface
        if held.address.ip not in served or held.address.version != 4 or name in leaving:
            continue
        if leaving and state.effective(name, "rp_filter") == 1:
            yield Finding(
                "rp-filter", Severity.WARNING, name,
                f"rp_filter is strict on {name}, where the balancer's packets arrive, and answers "
                f"leave by {', '.join(sorted(leaving))}: packets from clients there are dropped",
                "set it to 2 (loose)",
                certain=False,
                commands=(str(set_device(Device(name, "", loose_rp_filter=True))[-1]),),
            )  # fmt: skip


def check_filter(observed: Observation, state: BackendState) -> Iterator[Finding]:
    """The table that clamps the MSS and accepts tunnels only from balancers, as join makes it."""
    if not state.want.filter or not any(end.loose_rp_filter for end in state.want.devices):
        return
    have = state.facts.filter
    load = (str(make_filter(state.want.filter)),)
    for name, address in _unadmitted(observed, state):
        yield Finding(
            "balancer-not-admitted", Severity.ERROR, name,
            f"the table inet tula_backend drops tunnel packets of the balancer {name} ({address}): "
            "it is from before that was in load_balancers",
            "load the table, or run tula backend join",
            commands=load,
        )  # fmt: skip
    if not have:
        yield Finding(
            "mss-not-clamped", Severity.WARNING, "nftables",
            "there is no table inet tula_backend: unless something else clamps the MSS in "
            "SYN-ACKs, full-size packets are lost in the tunnels; and anyone who can reach the "
            "tunnel endpoints can send into them",
            "load the table, or run tula backend join",
            certain=False, commands=load,
        )  # fmt: skip
    elif "maxseg size set" not in have:
        yield Finding(
            "mss-not-clamped", Severity.ERROR, "nftables",
            "the table inet tula_backend does not clamp the MSS: full-size packets are lost",
            "load the table, or run tula backend join",
            commands=load,
        )  # fmt: skip
    elif "hook postrouting" not in have:
        yield Finding(
            "mss-not-clamped", Severity.WARNING, "nftables",
            "the table inet tula_backend is of an older Tula: it clamps the MSS in answers of "
            "local servers only, and not of containers and others behind NAT",
            "load the table, or run tula backend join",
            commands=load,
        )  # fmt: skip


def _unadmitted(observed: Observation, state: BackendState) -> Iterator[tuple[str, IPAddress]]:
    """The balancers that the table should admit and does not, where it admits only some."""
    have, want = (_sources(text) for text in (state.facts.filter, state.want.filter))
    for name, address in observed.config.load_balancers:
        text = str(address)
        if any(
            text in wanted and text not in have.get(port, wanted) for port, wanted in want.items()
        ):
            yield name, address


def _sources(table: str) -> dict[tuple[str, str], set[str]]:
    """Who may send, by UDP port and family, in the text of a table (see ``agent.filter``)."""
    found: dict[tuple[str, str], set[str]] = {}
    for line in table.splitlines():
        if gate := _GATE.search(line):
            found.setdefault((gate[1], gate[2]), set()).update(re.findall(r"[0-9a-f.:]+", gate[3]))
    return found
