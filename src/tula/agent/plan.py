"""What a machine must have to serve as a backend of documents."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tula.agent.filter import Clamp, Gate, render_filter
from tula.model.backend_setup import BackendSide, End, GuePort, HeldVip, Setting
from tula.model.config import Backend, Config, Forwarding, IPAddress, Tunnel, VirtualService
from tula.plan.tunnels import outer_address, overhead, vxlan_mac

_WIRE = 1500
"""The largest packet of the usual Ethernet; what the balancer's link takes is not known here."""
_HEADERS = {4: 40, 6: 60}
"""Bytes of the IP and TCP headers, which the MSS leaves out."""


@dataclass(frozen=True, slots=True)
class Role:
    """One document, and what of it one machine serves."""

    config: Config
    serves: tuple[tuple[VirtualService, Backend], ...]


def role_by_name(config: Config, name: str) -> Role | None:
    """The backend of a name, and whatever else serves at the same address; None without one.

    Services may call one machine by different names, and two machines by the same.
    """
    key = next((b.key for s in config.services for b in s.backends if b.name == name), None)
    return _role(config, lambda backend: backend.key == key) if key is not None else None


def role_by_addresses(config: Config, addresses: Collection[IPAddress]) -> Role | None:
    """All backends that have one of a machine's addresses; None without any."""
    role = _role(config, lambda backend: any(a in addresses for a in backend.addresses))
    return role if role.serves else None


def _role(config: Config, mine: Callable[[Backend], bool]) -> Role:
    pairs = ((s, b) for s in config.services for b in s.backends if mine(b))
    return Role(config, tuple(pairs))


def plan_backend_side(
    roles: Sequence[Role],
    vip_device: str = "lo",
    wire: int = _WIRE,
    any_mode: bool = True,
) -> BackendSide:
    """What it takes to serve all of these.

    ``vip_device`` is made when it is not lo. ``wire``: bytes of the largest packet that the
    machine's own link takes, which counts where it is less than Ethernet's usual 1,500.
    ``any_mode``: whoever makes the devices can make ``sit`` in mode any; else it becomes two.
    """
    ends: list[End] = []
    ports: dict[GuePort, None] = {}
    gates: dict[Gate, None] = {}
    clamps: dict[IPAddress, int] = {}
    vips: dict[IPAddress, None] = {}
    if vip_device != "lo":
        ends.append(End(vip_device, "dummy"))
    for config, service, backend in _served(roles):
        vips |= dict.fromkeys(service.vips)
        if service.forwarding is not Forwarding.L3:
            continue
        outer = outer_address(backend)
        balancers = _balancers(config, outer.version)
        for end in _ends(config, service.tunnel, outer, any_mode):
            if end not in ends:
                ends.append(end)
        if service.tunnel is Tunnel.GUE:
            ports[GuePort(config.tunnels.gue_port, outer.version)] = None
            gates[Gate(outer.version, config.tunnels.gue_port, None, balancers)] = None
        if service.tunnel is Tunnel.VXLAN:
            tunnels = config.tunnels
            gates[Gate(outer.version, tunnels.vxlan_port, tunnels.vxlan_id, balancers)] = None
        room = min(wire, _WIRE) - overhead(service.tunnel, outer.version)
        for vip in service.vips:
            clamps[vip] = min(clamps.get(vip, _WIRE), room - _HEADERS[vip.version])
    loose = [end for end in ends if end.loose]
    inside = [end.name for end in ends if end.name != vip_device]
    # Its own addresses too: balancers ask by them whether the tunnel ends here.
    own = dict.fromkeys(a for _, _, backend in _served(roles) for a in backend.addresses)
    held = [HeldVip(vip, vip_device) for vip in vips]
    clamped = [vip for vip in clamps if vip.version == 4]
    # Loose reverse-path filtering refuses all on a device without an address (fib_frontend.c,
    # __fib_validate_source: no_addr); the VIP itself is one that needs no other.
    held += [HeldVip(clamped[0], end.name) for end in loose if clamped]
    return BackendSide(
        settings=tuple(_silence(vips)),
        filter=render_filter(
            tuple(gates), inside, (*vips, *own), [Clamp(v, s) for v, s in clamps.items()]
        ),
        ports=tuple(ports),
        ends=tuple(ends),
        vips=tuple(held),
    )


def _served(roles: Sequence[Role]) -> Iterator[tuple[Config, VirtualService, Backend]]:
    for role in roles:
        for service, backend in role.serves:
            yield role.config, service, backend


def _balancers(config: Config, version: int) -> tuple[IPAddress, ...]:
    return tuple(a for _, a in config.load_balancers if a.version == version)


def _silence(vips: Iterable[IPAddress]) -> Iterator[Setting]:
    """No ARP for VIPs, by whatever interface (ip-sysctl.rst); neighbour discovery needs nothing.

    For all interfaces, since the largest of an interface's own value and this one counts, and
    since interfaces come and go.
    """
    if any(vip.version == 4 for vip in vips):
        ignore, announce = "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce"
        yield Setting(ignore, "1", frozenset({"1", "2", "3", "8"}))
        yield Setting(announce, "2", frozenset({"2"}))


def _ends(config: Config, tunnel: Tunnel, outer: IPAddress, any_mode: bool) -> Iterator[End]:
    if tunnel is Tunnel.VXLAN:
        yield _vxlan(config, outer)
        return
    kind = end_kind(tunnel, outer.version)
    # Without balancers in the document: one that takes packets from anyone.
    for remote in _balancers(config, outer.version) or (None,):
        if kind == "sit" and not any_mode:
            yield _point_to_point("ipip", "ipip", outer, remote)
            yield _point_to_point("sit", "sit", outer, remote, inside=6)
        else:
            yield _point_to_point(kind, "gre" if tunnel is Tunnel.GRE else "ipip", outer, remote)


def _name(stem: str, *place: object) -> str:
    """A name of 15 characters at most, by what the kernel has one device of.

    So it is the same whatever else a document has, and a device that is set otherwise is known.
    """
    digest = b32encode(blake2b(repr(place).encode(), digest_size=5).digest()).decode().lower()
    return f"tula-{stem}-{digest[:4]}"


def _vxlan(config: Config, outer: IPAddress) -> End:
    vni, port = config.tunnels.vxlan_id, config.tunnels.vxlan_port
    told = {"id": vni, "port": port, "local" if outer.version == 4 else "local6": str(outer)}
    return End(
        name=_name("vxlan", vni, port, outer.version),
        kind="vxlan",
        options=(*f"id {vni} dstport {port} local {outer} nolearning".split(),),
        told=tuple({**told, "learning": False}.items()),
        mac=vxlan_mac(outer),
        loose=True,
    )


def end_kind(tunnel: Tunnel, outer: int) -> str:
    """The kind of the backend's device, by the version of the outer addresses.

    ``sit`` and ``ip6tnl`` in mode any take packets of both versions from inside.
    """
    if tunnel is Tunnel.VXLAN:
        return "vxlan"
    if tunnel is Tunnel.GRE:
        return {4: "gre", 6: "ip6gre"}[outer]
    return {4: "sit", 6: "ip6tnl"}[outer]


def _point_to_point(
    kind: str, stem: str, local: IPAddress, remote: IPAddress | None, inside: int | None = None
) -> End:
    """``inside``: the one version that it takes where its kind can take both."""
    mode = ("mode", "any") if kind in ("sit", "ip6tnl") and inside is None else ()
    # Without a remote the device takes packets from anyone; IPv6 devices want it said.
    anyone = ("remote", "::") if local.version == 6 else ()
    options = (*mode, "local", str(local), *(("remote", str(remote)) if remote else anyone))
    told: dict[str, object] = {"local": str(local), "remote": str(remote) if remote else "any"}
    if mode:
        told["proto"] = "any"
    # gue has the devices of ipip: its ports hand them what they unpack.
    name = _name(stem, str(local), str(remote))
    return End(name, kind, options, tuple(told.items()), loose=inside != 6)
