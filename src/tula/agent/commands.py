"""The commands that make a part of a backend's side, and those that take it away.

What ``tula backend join`` runs, and what ``instructions`` and the doctor print, are the same.
"""

from __future__ import annotations

from tula.model.backend_setup import TABLE, End, GuePort, HeldVip
from tula.model.command import Command, command


def write_setting(name: str, value: str) -> Command:
    """Sets a sysctl, given with slashes."""
    # sysctl takes slashes too, which an interface with a dot in its name needs.
    return command(f"sysctl -q -w {name if '.' in name else name.replace('/', '.')}={value}")


def make_filter(text: str) -> Command:
    """Replaces the table by this one, in one transaction."""
    # nft 1.0.6 knows no "destroy": what is deleted must be there.
    return command("nft -f -", f"table inet {TABLE}\ndelete table inet {TABLE}\n{text}")


def remove_filter() -> Command:
    return command(f"nft delete table inet {TABLE}")


def make_port(port: GuePort) -> Command:
    return command(f"ip {_family(port)}fou add port {port.port} gue")


def remove_port(port: GuePort) -> Command:
    return command(f"ip {_family(port)}fou del port {port.port} gue")


def _family(port: GuePort) -> str:
    return "-6 " if port.version == 6 else ""


def make_end(end: End) -> list[Command]:
    mac = f"address {end.mac} " if end.mac else ""
    made = [command(f"ip link add {end.name} {mac}type {end.kind} {' '.join(end.options)}")]
    made += set_end(end)
    return made


def set_end(end: End) -> list[Command]:
    """What is set of a device that is there."""
    # Nothing is said into a tunnel, and nothing asked: balancers know all they must.
    silent = " arp off" if end.kind == "vxlan" else ""
    # In two steps: what is set with "up" comes after it (do_setlink, rtnetlink.c).
    made = [
        command(f"ip link set {end.name} addrgenmode none"),
        command(f"ip link set {end.name}{silent} up"),
    ]
    if end.loose:
        made.append(write_setting(loose_setting(end), "2"))
    return made


def loose_setting(end: End) -> str:
    """The sysctl that lets packets in whose way back is another interface."""
    return f"net/ipv4/conf/{end.name}/rp_filter"


def remove_end(end: End) -> Command:
    return command(f"ip link del {end.name}")


def make_vip(held: HeldVip) -> Command:
    """Accepts the VIP, and never chooses it as source of the machine's own traffic.

    IPv4: scope host is passed over (inet_select_addr, devinet.c). IPv6: a deprecated address
    comes last (RFC 6724, rule 3); and no duplicate address detection, since all have the VIP.
    """
    quiet = "scope host" if held.vip.version == 4 else "nodad noprefixroute preferred_lft 0"
    return command(f"ip address add {_prefix(held)} dev {held.device} {quiet}")


def remove_vip(held: HeldVip) -> Command:
    return command(f"ip address del {_prefix(held)} dev {held.device}")


def _prefix(held: HeldVip) -> str:
    return f"{held.vip}/{held.vip.max_prefixlen}"
