"""What an administrator does on a backend, by hand, computed from the document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tula.model.config import Backend, Config, Forwarding, IPAddress, Tunnel
from tula.plan.tunnels import outer_address, overhead, vxlan_mac

_WIRE = 1500
_HEADERS = {4: 40, 6: 60}
"""Bytes of the IP and TCP headers, which the MSS leaves out."""
VXLAN_DEVICE = "tula-vxlan"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step: why, and the commands of a shell run by root."""

    why: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Served:
    """What one backend serves, over all services that name it."""

    backend: Backend
    vips: tuple[IPAddress, ...]
    tunnels: tuple[tuple[Tunnel, int], ...]
    """Tunnels with the version of the packets inside."""

    def versions(self, tunnel: Tunnel) -> set[int]:
        return {version for used, version in self.tunnels if used is tunnel}


def plan_instructions(config: Config, name: str) -> tuple[Instruction, ...] | None:
    """The steps for the backend of this name; None if the document has none."""
    served = _served(config, name)
    return tuple(_steps(config, served)) if served is not None else None


def _served(config: Config, name: str) -> _Served | None:
    backend: Backend | None = None
    vips: dict[IPAddress, None] = {}
    tunnels: dict[tuple[Tunnel, int], None] = {}
    for service in config.services:
        for candidate in service.backends:
            if candidate.name != name or (backend and candidate.key != backend.key):
                continue
            backend = candidate
            vips |= dict.fromkeys(service.vips)
            if service.forwarding is Forwarding.L3:
                tunnels |= {(service.tunnel, version): None for version in service.versions}
    return _Served(backend, tuple(vips), tuple(tunnels)) if backend else None


def _steps(config: Config, served: _Served) -> Iterator[Instruction]:
    if any(vip.version == 4 for vip in served.vips):
        yield Instruction(
            "Keep silent about the VIPs: the balancer alone answers ARP for them.",
            ("sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",),
        )
    for tunnel in dict.fromkeys(used for used, _ in served.tunnels):
        yield from _tunnel(config, served, tunnel)
    if any(version == 4 for _, version in served.tunnels):
        yield Instruction(
            "Take packets for the VIPs from the tunnels: their way back is another one.",
            ("sysctl -w net.ipv4.conf.all.rp_filter=0",),
        )
    yield Instruction(
        "Hold the VIPs.",
        tuple(
            f"ip address replace {vip}/{vip.max_prefixlen} dev lo"
            + (" nodad preferred_lft 0" if vip.version == 6 else "")
            for vip in served.vips
        ),
    )
    yield from _clamp(served)


def _tunnel(config: Config, served: _Served, tunnel: Tunnel) -> Iterator[Instruction]:
    local = outer_address(served.backend)
    balancers = {n: a for n, a in config.load_balancers if a.version == local.version}
    if tunnel is Tunnel.VXLAN:
        make = (
            f"ip link add {VXLAN_DEVICE} address {vxlan_mac(local)} type vxlan "
            f"id {config.tunnels.vxlan_id} dstport {config.tunnels.vxlan_port} "
            f"local {local} nolearning"
        )
        commands = [_unless(VXLAN_DEVICE) + make, *_up(VXLAN_DEVICE)]
        yield Instruction(
            "The other end of VXLAN, with the MAC that balancers expect.", (*commands,)
        )
        return
    if tunnel is Tunnel.GUE:
        family = "-6 " if local.version == 6 else ""
        port = config.tunnels.gue_port
        module = "fou6" if local.version == 6 else "fou"
        yield Instruction(
            "Take GUE's UDP packets apart.",
            (
                f"modprobe {module}",
                f"ip {family}fou show | grep -q 'port {port} gue' || "
                f"ip {family}fou add port {port} gue",
            ),
        )
    kind = _kind(tunnel, local.version)
    # By number, not by name: an interface's has 15 characters at most.
    name = "tula-gre" if tunnel is Tunnel.GRE else "tula-ipip"
    devices = {f"{name}-{n}": f" remote {a}" for n, a in enumerate(balancers.values(), 1)}
    why = f"The other end of {tunnel}, for packets of {_listed(balancers)}."
    if not devices:
        anyone = " remote ::" if local.version == 6 else ""
        devices = {name: anyone}
        why = f"The other end of {tunnel}, for packets of anyone (the document names no balancers)."
    commands = []
    for device, remote in devices.items():
        make = f"ip link add {device} type {kind} local {local}{remote}"
        commands += [_unless(device) + make, *_up(device)]
    yield Instruction(why, tuple(commands))


def _unless(device: str) -> str:
    """Before what makes a device: a script that is run again, and ipip and gue that share one."""
    return f"ip link show {device} >/dev/null 2>&1 || "


def _kind(tunnel: Tunnel, outer: int) -> str:
    if tunnel is Tunnel.GRE:
        return {4: "gre", 6: "ip6gre"}[outer]
    return {4: "sit mode any", 6: "ip6tnl mode any"}[outer]


def _up(name: str) -> tuple[str, ...]:
    return f"ip link set {name} up", f"sysctl -w net.ipv4.conf.{name}.rp_filter=0"


def _listed(balancers: dict[str, IPAddress]) -> str:
    return " and ".join(balancers)


def _clamp(served: _Served) -> Iterator[Instruction]:
    """Lowers the MSS in the answers to SYNs: clients then send what fits into the tunnels."""
    sizes: dict[int, int] = {}
    for tunnel, version in served.tunnels:
        fits = _WIRE - overhead(tunnel, outer_address(served.backend).version) - _HEADERS[version]
        sizes[version] = min(fits, sizes.get(version, fits))
    if not sizes:
        return
    yield Instruction(
        "Ask clients for segments that fit into the tunnel (needs nftables).",
        clamp_commands(served.vips, sizes),
    )


def clamp_commands(vips: Sequence[IPAddress], sizes: Mapping[int, int]) -> tuple[str, ...]:
    """What lowers the MSS in the VIPs' answers to SYNs to these sizes, by IP version."""
    rules = []
    for version, size in sorted(sizes.items()):
        listed = ", ".join(str(vip) for vip in vips if vip.version == version)
        family = "ip" if version == 4 else "ip6"
        rules.append(
            f"nft 'add rule inet tula_mss out {family} saddr {{ {listed} }} "
            f"tcp flags & (syn|ack) == (syn|ack) tcp option maxseg size > {size} "
            f"tcp option maxseg size set {size}'"
        )
    return (
        "nft 'add table inet tula_mss; flush table inet tula_mss; "
        "add chain inet tula_mss out { type filter hook output priority -150; }'",
        *rules,
    )
