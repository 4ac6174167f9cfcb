"""The commands that create and remove each part of a backend's setup.

``tula backend join`` runs them; ``tula backend instructions`` and the doctor print the same ones.
"""

from __future__ import annotations

from tula.model.backend_setup import TABLE, UNMANAGED, Device, GuePort, VipAddress
from tula.model.command import Command, command


def write_setting(name: str, value: str) -> Command:
    """Set a sysctl, named with slashes."""
    # sysctl takes slashes too, which an interface with a dot in its name needs.
    return command(f"sysctl -q -w {name if '.' in name else name.replace('/', '.')}={value}")


def make_unmanaged(path: str) -> list[Command]:
    """Keep systemd-networkd off Tula's devices, at once where it is running."""
    reload = "if systemctl is-active -q systemd-networkd; then networkctl reload || true; fi"
    return [
        Command(("install", "-D", "-m", "644", "/dev/stdin", path), UNMANAGED),
        Command(("sh", "-c", reload)),
    ]


def remove_unmanaged(path: str) -> Command:
    """Without a reload of networkd: the devices are gone."""
    return command(f"rm -f {path}")


def make_filter(text: str) -> Command:
    """Replace the table by this one, in one transaction."""
    # nft 1.0.6 has no "destroy": what is deleted must exist.
    return command("nft -f -", f"table inet {TABLE}\ndelete table inet {TABLE}\n{text}")


def remove_filter() -> Command:
    """Delete the table."""
    return command(f"nft delete table inet {TABLE}")


def make_port(port: GuePort) -> Command:
    """Open a port for GUE."""
    return command(f"ip {_family(port)}fou add port {port.port} gue")


def remove_port(port: GuePort) -> Command:
    """Close a port for GUE."""
    return command(f"ip {_family(port)}fou del port {port.port} gue")


def _family(port: GuePort) -> str:
    return "-6 " if port.version == 6 else ""


def make_device(device: Device) -> list[Command]:
    """Create a device and bring it up."""
    mac = f"address {device.mac} " if device.mac else ""
    options = " ".join(device.options)
    made = [command(f"ip link add {device.name} {mac}type {device.kind} {options}")]
    made += set_device(device)
    return made


def set_device(device: Device) -> list[Command]:
    """Configure a device that exists, and bring it up."""
    # Nothing is sent into the tunnel, so there is nobody to resolve.
    silent = " arp off" if device.kind == "vxlan" else ""
    # In two steps: what is set with "up" comes after it (do_setlink, rtnetlink.c).
    made = [
        command(f"ip link set {device.name} addrgenmode none"),
        command(f"ip link set {device.name}{silent} up"),
    ]
    if device.loose_rp_filter:
        made.append(write_setting(rp_filter_of(device), "2"))
    return made


def rp_filter_of(device: Device) -> str:
    """The name of the device's reverse-path filter sysctl, with slashes."""
    return f"net/ipv4/conf/{device.name}/rp_filter"


def remove_device(device: Device) -> Command:
    """Delete a device."""
    return command(f"ip link del {device.name}")


def make_vip(address: VipAddress) -> Command:
    """Add a VIP such that it is never the source address of the machine's own connections.

    IPv4: scope host is skipped (inet_select_addr, devinet.c). IPv6: a deprecated address comes
    last (RFC 6724, rule 3); and no duplicate address detection, since every backend has the VIP.
    """
    quiet = "scope host" if address.vip.version == 4 else "nodad noprefixroute preferred_lft 0"
    return command(f"ip address add {_prefix(address)} dev {address.device} {quiet}")


def remove_vip(address: VipAddress) -> Command:
    """Remove a VIP from its device."""
    return command(f"ip address del {_prefix(address)} dev {address.device}")


def _prefix(address: VipAddress) -> str:
    return f"{address.vip}/{address.vip.max_prefixlen}"
