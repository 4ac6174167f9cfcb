"""Commands that mend, run by root on the machine that they are for. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tula.agent.commands import make_vip
from tula.agent.instructions import plan_instructions
from tula.model.backend_setup import VipAddress
from tula.model.config import Config, IPAddress

QUIET = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"


def hold_vip(vip: IPAddress) -> tuple[str, ...]:
    """On a backend: has the VIP on lo, and is silent about it."""
    add = str(make_vip(VipAddress(vip, "lo"))).replace("address add", "address replace")
    return (add,) if vip.version == 6 else (QUIET, add)


def hide_vip(vip: IPAddress) -> tuple[str, ...]:
    """On a backend: takes the VIP from every interface that answers for it, to lo.

    A device that has no link to neighbours may keep it.
    """
    away = (
        f"ip -o address show to {vip}/{vip.max_prefixlen} | while read -r _ dev _ address _; do "
        'ip link show dev "$dev" | grep -q link/ether || continue; '
        'ip -d link show dev "$dev" | grep -qw dummy && continue; '
        'ip address delete "$address" dev "$dev"; done'
    )
    quiet, *add = hold_vip(vip) if vip.version == 4 else ("", *hold_vip(vip))
    # In this order: at no time does it answer for the VIP and hold it.
    return tuple(command for command in (quiet, away, *add) if command)


def open_tunnel(config: Config, backend: str) -> tuple[str, ...]:
    """On a backend: its tunnels' ends made anew, by the document; filters and VIPs too."""
    steps = plan_instructions(config, backend) or ()
    commands: list[str] = []
    for step in steps:
        for command in step.commands:
            device = _made_by(command)
            if device:
                commands.append(f"ip link delete {device} 2>/dev/null || true")
            commands.append(command)
    return tuple(commands)


def clamp(vips: Sequence[IPAddress], sizes: Mapping[int, int]) -> tuple[str, ...]:
    """On a backend: answers of these VIPs ask for segments of at most so many bytes, by version."""
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


def apply(text: str) -> tuple[str, ...]:
    """On the balancer: brings it to the document."""
    return (f"tula apply {text}".rstrip(),)


def _made_by(command: str) -> str:
    """The device that an instruction makes."""
    _, found, rest = command.partition("ip link add ")
    return rest.split()[0] if found else ""
