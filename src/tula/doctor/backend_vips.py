"""Whether a backend holds its VIPs, does not announce them, and serves on them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.commands import make_vip, remove_vip, write_setting
from tula.doctor.backend_state import BackendState
from tula.doctor.chains import Drops, SamplePacket, drops_packet
from tula.doctor.observation import UNUSED_ADDRESSES, Observation
from tula.doctor.redirects import (
    NAT_PRIORITY,
    Redirects,
    first_samples,
    redirects_packet,
    served_ports,
    serves_elsewhere,
)
from tula.model.backend_setup import VipAddress
from tula.model.chain import BaseChain
from tula.model.config import IPAddress, Protocol
from tula.model.finding import Finding, Severity

_SILENT_KINDS = ("lo", "dummy", "sit", "ipip", "ip6tnl", "gre", "ip6gre", "vxlan")
"""Devices on which an address is not announced to clients or routers."""
_IPTABLES = {"filter", "mangle", "nat", "raw", "security"}
_SILENT_VALUES = {"arp_ignore": {1, 2, 3, 8}, "arp_announce": {2}}
_EFFECTS = {
    "arp_ignore": "it answers ARP for VIPs there, and clients bypass the balancer",
    "arp_announce": "it may send ARP requests from a VIP, and neighbours learn its MAC for the VIP",
}


def check_vips(observed: Observation, state: BackendState) -> Iterator[Finding]:
    """Each VIP is on lo or a similar device, and on no interface that would announce it."""
    vips = dict.fromkeys(held.vip for held in state.want.vips)
    for vip in vips:
        devices = sorted(name for address, name in state.facts.addresses if address == vip)
        if vip in state.facts.balanced:
            continue  # this machine also balances it
        loud = [name for name in devices if not _is_silent(state, name)]
        add = str(make_vip(VipAddress(vip, "lo")))
        redirects = serves_elsewhere(state, vip) if not devices else Redirects.NO
        if not devices and redirects is not Redirects.YES:
            yield Finding(
                "vip-missing", Severity.ERROR, str(vip),
                f"this machine does not have {vip}, and does not accept packets for it",
                "add the VIP to lo, or run tula backend join",
                certain=redirects is Redirects.NO,
                commands=(add,),
            )  # fmt: skip
        for name in loud:
            remove = str(remove_vip(VipAddress(vip, name)))
            length = _prefix_length(observed, vip, name)
            remove = remove.replace(f"/{vip.max_prefixlen} ", f"/{length} ")
            yield Finding(
                "vip-announced", Severity.ERROR, name,
                f"{vip} is on {name}: this machine announces it there, as the balancer does",
                "move the VIP to lo, or run tula backend join",
                commands=(remove, add) if len(loud) == len(devices) else (remove,),
            )  # fmt: skip


def _is_silent(state: BackendState, name: str) -> bool:
    link = state.facts.links.get(name)
    return name == "lo" or (link is not None and link.kind in _SILENT_KINDS)


def _prefix_length(observed: Observation, vip: IPAddress, name: str) -> int:
    return next(
        held.address.network.prefixlen
        for held in observed.host.addresses
        if held.address.ip == vip and held.interface == name
    )


def check_arp_sysctls(observed: Observation, state: BackendState) -> Iterator[Finding]:
    """The effective values on each interface that uses ARP keep the VIPs silent."""
    for want in state.want.settings:
        setting = want.name.rpartition("/")[2]
        loud = {
            name: value
            for name, link in observed.host.links.items()
            if any(link.mac) and not name.startswith("tula") and _is_up(observed, name)
            if (value := state.effective(name, setting)) is not None
            if value not in _SILENT_VALUES[setting]
        }
        # One command fixes all interfaces; the finding names the first.
        for name, value in list(loud.items())[:1]:
            yield Finding(
                setting.replace("_", "-"), Severity.ERROR, name,
                f"the effective {setting} is {value} on {', '.join(loud)}: {_EFFECTS[setting]}",
                f"set {want.name.replace('/', '.')} to {want.value}, in /etc/sysctl.d too, or run "
                "tula backend join",
                commands=(str(write_setting(want.name, want.value)),),
            )  # fmt: skip


def _is_up(observed: Observation, name: str) -> bool:
    link = observed.links.get(name)
    return link is None or link.up


def check_default_route(observed: Observation, state: BackendState) -> Iterator[Finding]:
    """Answers to clients elsewhere go to a router, and not to a balancer."""
    balancers = {address: name for name, address in observed.config.load_balancers}
    versions = {held.vip.version for held in state.want.vips}
    for version in sorted(versions):
        route = observed.host.routes.get(UNUSED_ADDRESSES[version])
        if route is None or route.kind != "unicast":
            yield Finding(
                "no-default-route", Severity.NOTE, f"IPv{version}",
                "this machine has no default route: it can answer clients on its own networks only",
                "add a default route if there are clients elsewhere",
            )  # fmt: skip
        elif route.gateway in balancers:
            family = "-6 " if version == 6 else ""
            yield Finding(
                "answers-through-balancer", Severity.ERROR, route.interface,
                f"the default route goes to {route.gateway}, which is the balancer "
                f"{balancers[route.gateway]}: answers go back through it",
                f"set the default route to a router: ip {family}route replace default via ROUTER",
            )  # fmt: skip


def check_listeners(_observed: Observation, state: BackendState) -> Iterator[Finding]:
    """A server listens on each port, on the VIP or on all addresses; or NAT takes it elsewhere."""
    for service, _ in state.role.serves:
        for protocol in service.protocols:
            ports = served_ports(service)
            for vip in service.vips:
                closed = [p for p in ports if not _is_served(state, protocol, vip, p)]
                # Of a range, one served port is enough.
                for port in closed if len(closed) == len(ports) else ():
                    yield _no_listener(state, protocol, vip, port)


def _is_served(state: BackendState, protocol: Protocol, vip: IPAddress, port: int) -> bool:
    if any(
        (kind, at) == (protocol, port) and _accepts(address, vip)
        for kind, address, at in state.listeners
    ):
        return True
    redirects, _ = redirects_packet(state, SamplePacket(vip, protocol.number, port))
    return redirects is Redirects.YES


def _accepts(address: IPAddress, vip: IPAddress) -> bool:
    # A socket on :: accepts IPv4 too, unless IPV6_V6ONLY is set, which /proc does not show.
    return address == vip or (address.is_unspecified and (address.version == 6 or vip.version == 4))


def _no_listener(state: BackendState, protocol: Protocol, vip: IPAddress, port: int) -> Finding:
    redirects, where = redirects_packet(state, SamplePacket(vip, protocol.number, port))
    if redirects is Redirects.MAYBE:
        return Finding(
            "behind-nat", Severity.NOTE, str(vip),
            f"no server listens on {protocol} port {port} of {vip}, and {where} may hand it to a "
            "container, another machine or another port",
            "if nothing there serves it, start the server",
            certain=False,
        )  # fmt: skip
    listeners = state.listeners
    elsewhere = sorted({str(a) for kind, a, at in listeners if (kind, at) == (protocol, port)})
    if elsewhere:
        return Finding(
            "listens-elsewhere", Severity.ERROR, str(vip),
            f"a server listens on {protocol} port {port} of {', '.join(elsewhere)}, not of {vip}",
            f"have the server listen on {vip}, or on all addresses",
        )  # fmt: skip
    return Finding(
        "not-listening", Severity.ERROR, str(vip),
        f"nothing listens on {protocol} port {port}",
        "start the server",
    )  # fmt: skip


def check_firewall(_observed: Observation, state: BackendState) -> Iterator[Finding]:
    """No other nftables chain drops packets for a VIP, as far as its rules can be read."""
    for protocol, sample in first_samples(state):
        redirects, _ = redirects_packet(state, sample)
        for chain in state.chains:
            before = chain.hook == "prerouting" and chain.priority <= NAT_PRIORITY
            if redirects is Redirects.YES and not before:
                continue  # sees another destination, or nothing
            if chain.family == {4: "ip6", 6: "ip"}[sample.vip.version]:
                continue
            if drops_packet(chain, sample) is Drops.YES:
                certain = before or redirects is Redirects.NO
                yield _dropping_chain(chain, protocol, sample, certain)


def _dropping_chain(
    chain: BaseChain, protocol: Protocol, sample: SamplePacket, certain: bool
) -> Finding:
    port = f" port {sample.port}" if sample.port is not None else ""
    return Finding(
        "firewall", Severity.ERROR, str(sample.vip),
        f"the chain {chain} ({chain.hook}) drops packets for {sample.vip} {protocol}{port}",
        "allow them there, and in the configuration that the rules are loaded from",
        certain=certain,
        commands=_allow(chain, protocol, sample),
    )  # fmt: skip


def _allow(chain: BaseChain, protocol: Protocol, sample: SamplePacket) -> tuple[str, ...]:
    """In the way of whoever manages the chain."""
    four = sample.vip.version == 4
    if chain.table == "firewalld":
        # It removes rules that are not its own at the next reload; and which zone is not known.
        return ()
    if chain.table in _IPTABLES and chain.name.isupper():
        # iptables refuses to list a chain with rules that only nft can write.
        program = "iptables" if four else "ip6tables"
        table = f"-t {chain.table} " if chain.table != "filter" else ""
        port = f" --dport {sample.port}" if sample.port is not None else ""
        return (f"{program} {table}-I {chain.name} -d {sample.vip} -p {protocol}{port} -j ACCEPT",)
    match = f"{protocol} dport {sample.port} " if sample.port is not None else ""
    family = "ip" if four else "ip6"
    return (f"nft insert rule {chain} {family} daddr {sample.vip} {match}accept",)
