"""A backend's setup as systemd-networkd files (systemd.netdev, systemd.network), version 252."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.agent.boot_files import BootFile, BootPlan, plan_boot
from tula.agent.plan import Role, plan_backend_setup
from tula.model.backend_setup import BackendSetup, Device, VipAddress

_FOLDER = "/etc/systemd/network"
_QUIET = "[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"


def plan_networkd(role: Role) -> BootPlan:
    """For a machine whose network systemd-networkd manages."""
    setup = plan_backend_setup([role], any_mode=False)
    files: list[BootFile] = []
    for device in setup.devices:
        files += [_netdev(device), _network(device, _addresses_on(setup, device.name))]
    files.append(_loopback(_addresses_on(setup, "lo")))
    name = role.serves[0][1].name
    title = f"Sets this machine up as the backend {name}, with systemd-networkd."
    return plan_boot(setup, title, files, ["systemctl restart systemd-networkd"])


def _addresses_on(setup: BackendSetup, device: str) -> list[VipAddress]:
    return [address for address in setup.vips if address.device == device]


def _netdev(device: Device) -> BootFile:
    mac = f"MACAddress={device.mac}\n" if device.mac else ""
    text = f"[NetDev]\nName={device.name}\nKind={device.kind}\n{mac}\n" + "".join(
        f"{line}\n" for line in _options(device)
    )
    return BootFile(f"{_FOLDER}/50-{device.name}.netdev", "a tunnel endpoint.", text)


def _options(device: Device) -> Iterator[str]:
    attributes = dict(device.attributes)
    if device.kind == "vxlan":
        yield "[VXLAN]"
        yield f"VNI={attributes['id']}"
        yield f"DestinationPort={attributes['port']}"
        yield f"Local={attributes.get('local', attributes.get('local6'))}"
        yield "MacLearning=no"
    else:
        yield "[Tunnel]"
        if device.kind == "ip6tnl":
            yield "Mode=any"
        yield f"Local={attributes['local']}"
        yield f"Remote={attributes['remote']}"
    # Otherwise the device would wait for an interface whose file refers to it.
    yield "Independent=yes"


def _network(device: Device, addresses: Sequence[VipAddress]) -> BootFile:
    # No ARP into a tunnel, and booting does not wait for one.
    arp = "ARP=no\n" if device.kind == "vxlan" else ""
    text = f"[Match]\nName={device.name}\n\n[Link]\n{arp}RequiredForOnline=no\n\n{_QUIET}"
    text += "".join(map(_address, addresses))
    return BootFile(
        f"{_FOLDER}/50-{device.name}.network",
        "bring it up, without ARP or router solicitations.",
        text,
    )


def _loopback(addresses: Sequence[VipAddress]) -> BootFile:
    text = f"[Match]\nName=lo\n\n{_QUIET}" + "".join(map(_address, addresses))
    return BootFile(f"{_FOLDER}/50-tula-vips.network", "the VIPs.", text)


def _address(address: VipAddress) -> str:
    """Never the source of the machine's own traffic; see ``commands.make_vip``."""
    quiet = "Scope=host\n"
    if address.vip.version == 6:
        quiet = "PreferredLifetime=0\nDuplicateAddressDetection=none\nAddPrefixRoute=no\n"
    return f"\n[Address]\nAddress={address.vip}/{address.vip.max_prefixlen}\n{quiet}"
