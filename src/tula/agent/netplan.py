"""A backend's side as a file of netplan, version 0.106."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.boot_files import BootFile, BootPlan, plan_boot
from tula.agent.plan import Role, plan_backend_side
from tula.model.backend_setup import BackendSide, End, HeldVip

_PATH = "/etc/netplan/90-tula-backend.yaml"
_MODES = {"ipip", "sit", "gre", "ip6gre", "vxlan"}


def plan_netplan(role: Role) -> BootPlan | str:
    """For a machine whose network netplan writes; what it has no word for as one line."""
    side = plan_backend_side([role], any_mode=False)
    if lacking := sorted(set(_lacking(side))):
        return f"netplan has no {' and no '.join(lacking)}"
    name = role.serves[0][1].name
    title = f"Makes this machine the backend {name}, by netplan, which writes its network."
    file = BootFile(
        _PATH,
        "tunnels' other ends, and the VIPs, where nobody is told.",
        "".join(f"{line}\n" for line in _lines(side)),
        secret=True,
    )
    apply = ["netplan generate", "systemctl restart systemd-networkd"]
    return plan_boot(side, title, [file], apply)


def _lacking(side: BackendSide) -> Iterator[str]:
    if side.ports:
        yield "GUE"
    for end in side.ends:
        if end.kind not in _MODES:
            yield f"{end.kind} that takes IPv4 and IPv6 (mode any)"
        elif dict(end.told).get("remote") == "any":
            yield "tunnel from anyone (name the balancers in load_balancers)"


def _lines(side: BackendSide) -> Iterator[str]:
    yield "network:"
    yield "  version: 2"
    yield "  renderer: networkd"
    yield "  ethernets:"
    yield "    lo:"
    yield "      match: {name: lo}"
    yield from _addresses(side, "lo")
    if side.ends:
        yield "  tunnels:"
    for end in side.ends:
        yield f"    {end.name}:"
        yield from (f"      {line}" for line in _options(end))
        yield "      link-local: []"
        yield "      accept-ra: false"
        yield "      optional: true"
        yield from _addresses(side, end.name)


def _options(end: End) -> Iterator[str]:
    told = dict(end.told)
    yield f"mode: {end.kind}"
    if end.kind == "vxlan":
        yield f"id: {told['id']}"
        yield f"port: {told['port']}"
        yield f'local: "{told.get("local", told.get("local6"))}"'
        yield "mac-learning: false"
        yield f'macaddress: "{end.mac}"'
    else:
        yield f'local: "{told["local"]}"'
        yield f'remote: "{told["remote"]}"'


def _addresses(side: BackendSide, device: str) -> Iterator[str]:
    held = [held for held in side.vips if held.device == device]
    if held:
        yield "      addresses:"
        yield from (f"        - {_address(one)}" for one in held)


def _address(held: HeldVip) -> str:
    """IPv6: never a source of the machine's own traffic; for IPv4 netplan has no scope."""
    text = f'"{held.vip}/{held.vip.max_prefixlen}"'
    return f"{text}: {{lifetime: 0}}" if held.vip.version == 6 else text
