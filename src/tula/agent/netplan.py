"""A backend's setup as a netplan file, for version 0.106 or newer."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.boot_files import BootFile, BootPlan, plan_boot
from tula.agent.plan import Role, plan_backend_setup
from tula.model.backend_setup import BackendSetup, Device, VipAddress

_PATH = "/etc/netplan/90-tula-backend.yaml"
_MODES = {"ipip", "sit", "gre", "ip6gre", "vxlan"}


def plan_netplan(role: Role) -> BootPlan | str:
    """For a machine that uses netplan; a line of text if netplan cannot express the setup."""
    setup = plan_backend_setup([role], any_mode=False)
    if lacking := sorted(set(_lacking(setup))):
        return f"netplan does not support {' or '.join(lacking)}"
    name = role.serves[0][1].name
    title = f"Sets this machine up as the backend {name}, with netplan."
    file = BootFile(
        _PATH,
        "tunnel endpoints and VIPs.",
        "".join(f"{line}\n" for line in _lines(setup)),
        secret=True,
    )
    apply = ["netplan generate", "systemctl restart systemd-networkd"]
    return plan_boot(setup, title, [file], apply)


def _lacking(setup: BackendSetup) -> Iterator[str]:
    if setup.ports:
        yield "GUE"
    for device in setup.devices:
        if device.kind not in _MODES:
            yield f"{device.kind} for both IPv4 and IPv6 (mode any)"
        elif dict(device.attributes).get("remote") == "any":
            yield "tunnels from anyone (name the balancers in load_balancers)"


def _lines(setup: BackendSetup) -> Iterator[str]:
    yield "network:"
    yield "  version: 2"
    yield "  renderer: networkd"
    yield "  ethernets:"
    yield "    lo:"
    yield "      match: {name: lo}"
    yield from _addresses(setup, "lo")
    if setup.devices:
        yield "  tunnels:"
    for device in setup.devices:
        yield f"    {device.name}:"
        yield from (f"      {line}" for line in _options(device))
        yield "      link-local: []"
        yield "      accept-ra: false"
        yield "      optional: true"
        yield from _addresses(setup, device.name)


def _options(device: Device) -> Iterator[str]:
    attributes = dict(device.attributes)
    yield f"mode: {device.kind}"
    if device.kind == "vxlan":
        yield f"id: {attributes['id']}"
        yield f"port: {attributes['port']}"
        yield f'local: "{attributes.get("local", attributes.get("local6"))}"'
        yield "mac-learning: false"
        yield f'macaddress: "{device.mac}"'
    else:
        yield f'local: "{attributes["local"]}"'
        yield f'remote: "{attributes["remote"]}"'


def _addresses(setup: BackendSetup, device: str) -> Iterator[str]:
    addresses = [address for address in setup.vips if address.device == device]
    if addresses:
        yield "      addresses:"
        yield from (f"        - {_address(address)}" for address in addresses)


def _address(address: VipAddress) -> str:
    """IPv6: never the source of the machine's own traffic; netplan cannot set IPv4's scope."""
    text = f'"{address.vip}/{address.vip.max_prefixlen}"'
    return f"{text}: {{lifetime: 0}}" if address.vip.version == 6 else text
