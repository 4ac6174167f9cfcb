"""A backend's setup as commands for an administrator to run by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tula.agent.commands import (
    make_device,
    make_filter,
    make_port,
    make_vip,
    set_device,
    write_setting,
)
from tula.agent.plan import Role, plan_backend_setup, role_by_name
from tula.model.backend_setup import BackendSetup, Device
from tula.model.config import Config, IPAddress
from tula.plan.tunnels import outer_address

_MODULES = {4: "fou", 6: "fou6"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step: its purpose, and shell commands to be run by root."""

    why: str
    commands: tuple[str, ...]


def plan_instructions(config: Config, name: str) -> tuple[Instruction, ...] | None:
    """The steps for the backend of this name; None if the configuration has none.

    They can be repeated. They are the commands of ``tula backend join``, except for what only it
    can know: whether the kernel has dummy devices for the VIPs.
    """
    role = role_by_name(config, name)
    return tuple(_steps(role, plan_backend_setup([role]))) if role is not None else None


def _steps(role: Role, setup: BackendSetup) -> Iterator[Instruction]:
    if setup.settings:
        yield Instruction(
            "Do not answer ARP for the VIPs: only the balancer does.",
            tuple(str(write_setting(s.name, s.value)) for s in setup.settings),
        )
    if setup.filter:
        yield Instruction(_filter_reason(role), (str(make_filter(setup.filter)),))
    for port in setup.ports:
        family = "-6 " if port.version == 6 else ""
        there = f"ip {family}fou show | grep -q 'port {port.port} gue'"
        yield Instruction(
            "Decapsulate GUE.",
            (f"modprobe {_MODULES[port.version]}", f"{there} || {make_port(port)}"),
        )
    if setup.devices:
        yield Instruction(_devices_reason(role), tuple(_devices(setup.devices)))
    yield Instruction(
        "Add the VIPs.",
        tuple(
            str(make_vip(address)).replace("address add", "address replace")
            for address in setup.vips
        ),
    )


def _devices(devices: tuple[Device, ...]) -> Iterator[str]:
    for device in devices:
        add, *_ = make_device(device)
        yield f"ip link show {device.name} >/dev/null 2>&1 || {add}"
        yield from map(str, set_device(device))


def _filter_reason(role: Role) -> str:
    return (
        "Accept only packets from balancers to the VIPs from tunnels, and clamp the MSS to what "
        f"fits into them (needs nftables). {_senders(role)}"
    )


def _devices_reason(role: Role) -> str:
    tunnels = sorted({tunnel for s, b in role.serves if (tunnel := s.tunnel_of(b)) is not None})
    return f"The tunnel endpoints ({', '.join(tunnels)}). {_senders(role)}"


def _senders(role: Role) -> str:
    versions = {outer_address(b).version for s, b in role.serves if s.tunnel_of(b) is not None}
    named: dict[str, IPAddress] = dict(role.config.load_balancers)
    balancers = [name for name, address in named.items() if address.version in versions]
    if not balancers:
        return "The configuration names no balancers: packets from anyone are accepted."
    return f"Balancers: {', '.join(balancers)}."
