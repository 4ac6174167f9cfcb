"""What a machine needs to serve as a backend of one or more configurations."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tula.agent.filter import Clamp, Gate, render_filter
from tula.model.announce import announced_by
from tula.model.backend_setup import BackendSetup, Device, GuePort, Setting, VipAddress
from tula.model.config import Backend, Config, IPAddress, Tunnel, VirtualService
from tula.model.desired import Announce
from tula.plan.tunnels import outer_address, overhead, vxlan_mac

_MTU = 1500
"""The usual Ethernet MTU; that of the balancer's link is not known here."""
_HEADERS = {4: 40, 6: 60}
"""Bytes of the IP and TCP headers, which the MSS does not count."""


@dataclass(frozen=True, slots=True)
class Role:
    """One configuration, and the services and backends of it that one machine is."""

    config: Config
    serves: tuple[tuple[VirtualService, Backend], ...]
    balances: bool = False
    """Whether the machine is one of the configuration's balancers as well."""

    @property
    def held(self) -> frozenset[IPAddress]:
        """The VIPs that Tula puts on an interface of this machine for good."""
        services = self.config.services if self.balances else ()
        static = (s for s in services if announced_by(self.config, s) is Announce.STATIC)
        return frozenset(vip for service in static for vip in service.vips)


def role_by_name(config: Config, name: str, addresses: Collection[IPAddress] = ()) -> Role | None:
    """The backend of this name, and all others at the same address; None if there is none.

    Services may use different names for one machine, and the same name for two machines: the one
    with some of these ``addresses`` is preferred.
    """
    named = [b for service in config.services for b in service.backends if b.name == name]
    mine = (b for b in named if not set(addresses).isdisjoint(b.addresses))
    found = next(mine, next(iter(named), None))
    if found is None:
        return None
    return _role(config, addresses, lambda backend: backend.key == found.key)


def role_by_addresses(config: Config, addresses: Collection[IPAddress]) -> Role | None:
    """All backends that have one of a machine's addresses, and those that are each balancer if it
    is one; None if there is none."""
    balances = bool(balancers_here(config, addresses))

    def is_it(backend: Backend) -> bool:
        return (backend.is_self and balances) or any(a in addresses for a in backend.addresses)

    role = _role(config, addresses, is_it)
    return role if role.serves else None


def balancers_here(config: Config, addresses: Collection[IPAddress]) -> list[tuple[str, IPAddress]]:
    """Which of the balancers a machine with these addresses is."""
    return [entry for entry in config.load_balancers if entry[1] in addresses]


def _role(
    config: Config, addresses: Collection[IPAddress], mine: Callable[[Backend], bool]
) -> Role:
    pairs = tuple((s, b) for s in config.services for b in s.backends if mine(b))
    balances = bool(balancers_here(config, addresses)) or any(b.is_self for _, b in pairs)
    return Role(config, pairs, balances)


def plan_backend_setup(
    roles: Sequence[Role],
    vip_device: str = "lo",
    mtu: int = _MTU,
    any_mode: bool = True,
) -> BackendSetup:
    """What a machine needs to serve all of these roles.

    ``vip_device`` is created unless it is lo. ``mtu`` is the MTU of the machine's own link in
    bytes, which matters if it is less than the usual 1,500. ``any_mode``: whoever creates the
    devices supports ``sit`` in mode any; otherwise two devices take its place.
    """
    devices: list[Device] = []
    ports: dict[GuePort, None] = {}
    gates: dict[Gate, None] = {}
    clamps: dict[IPAddress, int] = {}
    vips: dict[IPAddress, None] = {}
    if vip_device != "lo":
        devices.append(Device(vip_device, "dummy"))
    for role, service, backend in _served(roles):
        config = role.config
        vips |= dict.fromkeys(vip for vip in service.vips if vip not in role.held)
        tunnel = service.tunnel_of(backend)
        if tunnel is None:
            continue
        outer = outer_address(backend)
        balancers = _balancers(config, outer.version)
        for device in _tunnel_devices(config, tunnel, outer, any_mode):
            if device not in devices:
                devices.append(device)
        if tunnel is Tunnel.GUE:
            ports[GuePort(config.tunnels.gue_port, outer.version)] = None
            gates[Gate(outer.version, config.tunnels.gue_port, None, balancers)] = None
        if tunnel is Tunnel.VXLAN:
            tunnels = config.tunnels
            gates[Gate(outer.version, tunnels.vxlan_port, tunnels.vxlan_id, balancers)] = None
        room = min(mtu, _MTU) - overhead(tunnel, outer.version)
        for vip in service.vips:
            clamps[vip] = min(clamps.get(vip, _MTU), room - _HEADERS[vip.version])
    loose = [device for device in devices if device.loose_rp_filter]
    inside = [device.name for device in devices if device.name != vip_device]
    # Its own addresses too: health checks use them to find out whether the tunnel ends here.
    own = dict.fromkeys(a for _, _, backend in _served(roles) for a in backend.addresses)
    held = [VipAddress(vip, vip_device) for vip in vips]
    clamped = [vip for vip in clamps if vip.version == 4]
    # Loose reverse-path filtering drops everything on a device without an address
    # (fib_frontend.c, __fib_validate_source: no_addr). A VIP will do as that address.
    held += [VipAddress(clamped[0], device.name) for device in loose if clamped]
    return BackendSetup(
        settings=tuple(_arp_settings(vips)),
        filter=render_filter(
            tuple(gates), inside, (*vips, *own), [Clamp(v, s) for v, s in clamps.items()]
        ),
        ports=tuple(ports),
        devices=tuple(devices),
        vips=tuple(held),
    )


def _served(roles: Sequence[Role]) -> Iterator[tuple[Role, VirtualService, Backend]]:
    for role in roles:
        for service, backend in role.serves:
            yield role, service, backend


def balanced_vips(roles: Sequence[Role]) -> set[IPAddress]:
    """The VIPs that a machine with these roles may also announce, as one of the balancers."""
    return {vip for role, service, _ in _served(roles) if role.balances for vip in service.vips}


def _balancers(config: Config, version: int) -> tuple[IPAddress, ...]:
    return tuple(a for _, a in config.load_balancers if a.version == version)


def _arp_settings(vips: Iterable[IPAddress]) -> Iterator[Setting]:
    """No ARP for VIPs on any interface (ip-sysctl.rst); neighbour discovery needs no setting.

    On ``all``: the larger of an interface's own value and this one applies, and interfaces may be
    added later.
    """
    if any(vip.version == 4 for vip in vips):
        ignore, announce = "net/ipv4/conf/all/arp_ignore", "net/ipv4/conf/all/arp_announce"
        yield Setting(ignore, "1", frozenset({"1", "2", "3", "8"}))
        yield Setting(announce, "2", frozenset({"2"}))


def _tunnel_devices(
    config: Config, tunnel: Tunnel, outer: IPAddress, any_mode: bool
) -> Iterator[Device]:
    if tunnel is Tunnel.VXLAN:
        yield _vxlan(config, outer)
        return
    kind = device_kind(tunnel, outer.version)
    # Without balancers in the configuration: one device that accepts packets from anyone.
    for remote in _balancers(config, outer.version) or (None,):
        if kind == "sit" and not any_mode:
            yield _point_to_point("ipip", "ipip", outer, remote)
            yield _point_to_point("sit", "sit", outer, remote, inside=6)
        else:
            yield _point_to_point(kind, "gre" if tunnel is Tunnel.GRE else "ipip", outer, remote)


def _name(stem: str, *place: object) -> str:
    """A name of at most 15 characters, derived from what the kernel allows one device of.

    So it does not depend on the rest of the configuration, and a device with other settings is
    recognized as the one to replace.
    """
    digest = b32encode(blake2b(repr(place).encode(), digest_size=5).digest()).decode().lower()
    return f"tula-{stem}-{digest[:4]}"


def _vxlan(config: Config, outer: IPAddress) -> Device:
    vni, port = config.tunnels.vxlan_id, config.tunnels.vxlan_port
    attributes = {"id": vni, "port": port, "local" if outer.version == 4 else "local6": str(outer)}
    return Device(
        name=_name("vxlan", vni, port, outer.version),
        kind="vxlan",
        options=(*f"id {vni} dstport {port} local {outer} nolearning".split(),),
        attributes=tuple({**attributes, "learning": False}.items()),
        mac=vxlan_mac(outer),
        loose_rp_filter=True,
    )


def device_kind(tunnel: Tunnel, outer: int) -> str:
    """The kind of the backend's device, by the version of the outer addresses.

    ``sit`` and ``ip6tnl`` in mode any decapsulate packets of both versions.
    """
    if tunnel is Tunnel.VXLAN:
        return "vxlan"
    if tunnel is Tunnel.GRE:
        return {4: "gre", 6: "ip6gre"}[outer]
    return {4: "sit", 6: "ip6tnl"}[outer]


def _point_to_point(
    kind: str, stem: str, local: IPAddress, remote: IPAddress | None, inside: int | None = None
) -> Device:
    """``inside``: the only IP version to accept where the kind can accept both."""
    mode = ("mode", "any") if kind in ("sit", "ip6tnl") and inside is None else ()
    # Without a remote the device accepts packets from anyone; IPv6 needs that spelled out.
    anyone = ("remote", "::") if local.version == 6 else ()
    options = (*mode, "local", str(local), *(("remote", str(remote)) if remote else anyone))
    attributes: dict[str, object] = {
        "local": str(local),
        "remote": str(remote) if remote else "any",
    }
    if mode:
        attributes["proto"] = "any"
    # gue uses the devices of ipip: its ports pass them what they decapsulate.
    name = _name(stem, str(local), str(remote))
    return Device(name, kind, options, tuple(attributes.items()), loose_rp_filter=inside != 6)
