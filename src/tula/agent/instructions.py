"""What an administrator does on a backend, by hand, computed from the document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tula.agent.commands import (
    make_end,
    make_filter,
    make_port,
    make_vip,
    set_end,
    write_setting,
)
from tula.agent.plan import Role, plan_backend_side, role_by_name
from tula.model.backend_setup import BackendSide, End
from tula.model.config import Config, Forwarding, IPAddress
from tula.plan.tunnels import outer_address

_MODULES = {4: "fou", 6: "fou6"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One step: why, and the commands of a shell run by root."""

    why: str
    commands: tuple[str, ...]


def plan_instructions(config: Config, name: str) -> tuple[Instruction, ...] | None:
    """The steps for the backend of this name; None if the document has none.

    They can be done again. They are the commands of ``tula backend join``, but for what only it
    can know: whether the kernel has a dummy device for the VIPs.
    """
    role = role_by_name(config, name)
    return tuple(_steps(role, plan_backend_side([role]))) if role is not None else None


def _steps(role: Role, side: BackendSide) -> Iterator[Instruction]:
    if side.settings:
        yield Instruction(
            "Keep silent about the VIPs: the balancer alone answers ARP for them.",
            tuple(str(write_setting(s.name, s.value)) for s in side.settings),
        )
    if side.filter:
        yield Instruction(_filter_reason(role), (str(make_filter(side.filter)),))
    for port in side.ports:
        family = "-6 " if port.version == 6 else ""
        there = f"ip {family}fou show | grep -q 'port {port.port} gue'"
        yield Instruction(
            "Take GUE's UDP packets apart.",
            (f"modprobe {_MODULES[port.version]}", f"{there} || {make_port(port)}"),
        )
    if side.ends:
        yield Instruction(_ends_reason(role), tuple(_ends(side.ends)))
    yield Instruction(
        "Hold the VIPs.",
        tuple(str(make_vip(held)).replace("address add", "address replace") for held in side.vips),
    )


def _ends(ends: tuple[End, ...]) -> Iterator[str]:
    for end in ends:
        add, *_ = make_end(end)
        yield f"ip link show {end.name} >/dev/null 2>&1 || {add}"
        yield from map(str, set_end(end))


def _filter_reason(role: Role) -> str:
    return (
        "Take from tunnels what is for the VIPs and comes from balancers, and ask clients for "
        f"segments that fit into them (needs nftables). {_whom(role)}"
    )


def _ends_reason(role: Role) -> str:
    tunnels = sorted({s.tunnel for s, _ in role.serves if s.forwarding is Forwarding.L3})
    return f"The other ends of tunnels ({', '.join(tunnels)}). {_whom(role)}"


def _whom(role: Role) -> str:
    versions = {outer_address(b).version for s, b in role.serves if s.forwarding is Forwarding.L3}
    named: dict[str, IPAddress] = dict(role.config.load_balancers)
    balancers = [name for name, address in named.items() if address.version in versions]
    if not balancers:
        return "The document names no balancers: anyone may send."
    return f"Balancers: {', '.join(balancers)}."
