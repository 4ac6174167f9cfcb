"""Commands that fix a problem, for a root shell on the machine that they name. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tula.agent.commands import make_vip
from tula.agent.instructions import plan_instructions
from tula.model.backend_setup import VipAddress
from tula.model.config import Config, IPAddress

SILENCE_ARP = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"


def hold_vip(vip: IPAddress) -> tuple[str, ...]:
    """On a backend: adds the VIP to lo without answering ARP for it."""
    add = str(make_vip(VipAddress(vip, "lo"))).replace("address add", "address replace")
    return (add,) if vip.version == 6 else (SILENCE_ARP, add)


def hide_vip(vip: IPAddress) -> tuple[str, ...]:
    """On a backend: moves the VIP to lo from every interface that answers ARP for it.

    Devices without neighbours keep it.
    """
    away = (
        f"ip -o address show to {vip}/{vip.max_prefixlen} | while read -r _ dev _ address _; do "
        'ip link show dev "$dev" | grep -q link/ether || continue; '
        'ip -d link show dev "$dev" | grep -qw dummy && continue; '
        'ip address delete "$address" dev "$dev"; done'
    )
    silence, *add = hold_vip(vip) if vip.version == 4 else ("", *hold_vip(vip))
    # In this order, the backend never answers ARP for a VIP that it holds.
    return tuple(command for command in (silence, away, *add) if command)


def recreate_tunnels(config: Config, backend: str) -> tuple[str, ...]:
    """On a backend: recreates its tunnel devices by the configuration, with filters and VIPs."""
    steps = plan_instructions(config, backend) or ()
    commands: list[str] = []
    for step in steps:
        for command in step.commands:
            device = _created_by(command)
            if device:
                commands.append(f"ip link delete {device} 2>/dev/null || true")
            commands.append(command)
    return tuple(commands)


def clamp_mss(vips: Sequence[IPAddress], sizes: Mapping[int, int]) -> tuple[str, ...]:
    """On a backend: clamps the MSS in SYN-ACKs from these VIPs to ``sizes``, by IP version."""
    rules = []
    for version, size in sorted(sizes.items()):
        listed = ", ".join(str(vip) for vip in vips if vip.version == version)
        family = "ip" if version == 4 else "ip6"
        rules.append(
            f"nft 'add rule inet tula_mss out {family} saddr {{ {listed} }} "
            f"tcp flags & (syn|ack) == (syn|ack) tcp option maxseg size > {size} "
            f"tcp option maxseg size set {size}'"
        )
    # Anew, as an older Tula's table of this name has its chain at another hook. After NAT (100).
    return (
        "nft 'add table inet tula_mss; delete table inet tula_mss; add table inet tula_mss; "
        "add chain inet tula_mss out { type filter hook postrouting priority 150; }'",
        *rules,
    )


def apply(options: str) -> tuple[str, ...]:
    """On the balancer: applies the configuration that the options name."""
    return (f"tula apply {options}".rstrip(),)


def _created_by(command: str) -> str:
    """The device that a command creates."""
    _, found, rest = command.partition("ip link add ")
    return rest.split()[0] if found else ""
